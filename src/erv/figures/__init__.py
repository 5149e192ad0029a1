"""Figures of a data set: their tables, their charts, their pages."""
