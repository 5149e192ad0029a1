"""The candidate bundle, its gates, its publication, and the model that serves it."""
