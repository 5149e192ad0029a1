"""The DVC pipeline and the processes that run it."""
