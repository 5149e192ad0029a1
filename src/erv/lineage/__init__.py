"""Where something came from and what was made from it."""
