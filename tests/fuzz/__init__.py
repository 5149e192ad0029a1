"""Mutations of valid clips; none may stop the pipeline."""
