"""The small tables of a data set that `dvc plots`, the MLflow runs and the report draw."""
