"""Label spaces: the explicit, ordered and versioned names of a data set's emotions."""

from erv.labels.label_space import NEUTRAL, LabelSpace, label_space_faults, own_file

__all__ = ["NEUTRAL", "LabelSpace", "label_space_faults", "own_file"]
