"""The MLflow run of a stage, and how it gets there."""
