"""From files to frames and sound, in worker processes that may die."""
