"""Drawings: the style that all charts share, the charts of a data set and their pages in MLflow."""
