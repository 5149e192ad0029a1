"""The cold start: supervised fine-tuning on explained clips."""
