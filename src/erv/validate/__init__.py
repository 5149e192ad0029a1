"""From a manifest to the verdict on it."""
