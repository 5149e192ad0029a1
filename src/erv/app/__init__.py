"""A page on which people let versions explain clips, and say what they think of it."""
