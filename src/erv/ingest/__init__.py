"""From a pinned source to the manifest of a data set."""
