"""From a manifest to a verdict on it."""
