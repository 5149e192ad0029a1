"""What ends a sweep."""

from erv.errors import ErvError


class SweepError(ErvError):
    """Too many trials failed, or none was finished."""
