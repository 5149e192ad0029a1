"""From clips to shards of frames and sound."""
