"""Data sets: their official layouts, the sample corpus, sources, manifests and ingestion."""
