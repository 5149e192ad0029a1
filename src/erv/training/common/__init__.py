"""What the cold start and GRPO share: batches, features, adapters, processes and the fine-tuning run."""
