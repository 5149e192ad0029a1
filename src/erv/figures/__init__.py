"""Drawings: the common style of all charts, the charts of a data set, and their pages in MLflow."""
