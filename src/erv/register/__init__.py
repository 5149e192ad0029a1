"""The candidate, its gates, its publication, and what answers from it."""
