"""From all data sets of a run to the clips that are in two splits."""
