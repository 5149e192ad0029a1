"""What the cold start and GRPO share: batches, features, adapters, processes, a run of fine-tuning."""
