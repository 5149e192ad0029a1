"""Keeps results whose code has changed in a way that can't matter, or for a reason that is on record."""
