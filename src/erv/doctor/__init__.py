"""What is there, what is missing, what to do about it; before hours are spent."""
