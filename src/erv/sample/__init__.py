"""The sample corpus: drawn clips in official layouts, and a tiny checkpoint."""
