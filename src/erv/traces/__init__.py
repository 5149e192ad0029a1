"""The clips of a finished evaluation as traces in MLflow, each with truth and judges' readings."""
