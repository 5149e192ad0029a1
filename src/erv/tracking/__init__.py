"""The MLflow run of a stage, and its delivery to the server."""
