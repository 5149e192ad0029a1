"""Training: supervised cold start and GRPO. Nothing here imports MLflow, Prefect or DVC."""
