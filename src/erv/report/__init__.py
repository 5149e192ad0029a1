"""The page that compares the policies."""
