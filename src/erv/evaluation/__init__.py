"""Evaluation: generated explanations, judged, measured, compared and shown."""
