"""Small tables about a data set, which `dvc plots`, the MLflow runs and the report draw as charts."""
