"""Judges and measures a policy on held-out clips."""
