"""Which frames of a clip are taken: by number where pictures come at a constant rate, otherwise by time.

The released code counts frames. At a constant rate that spreads them evenly over the clip's time. At a
variable rate (phones, screen recordings, slide shows) it doesn't: of a clip that shows 4 pictures in 2 s and
30 in the third, 7 of 8 frames would come from the last second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# How far a picture may be from its place at a constant rate, as a share of the mean time between two. Up to
# here, choosing by number and by time differ by less than a picture. Files that round times to milliseconds,
# or lack a single picture, stay below.
_REGULAR = 0.5
_LONGEST_LAST = 2.0  # times the mean time between two pictures


@dataclass(frozen=True)
class Times:
    """When the pictures of a track are shown.

    Attributes:
        starts: float64 [N] seconds, not decreasing.
        last: for how many seconds the last picture is shown; 0 if unknown.
    """

    starts: np.ndarray
    last: float

    @classmethod
    def of(cls, starts: Sequence[float | None], last: float) -> Times | None:
        """Times from starts in any order; None if one is unknown, or without pictures."""
        known = [start for start in starts if start is not None]
        if not known or len(known) < len(starts):
            return None
        return cls(np.sort(np.array(known, np.float64)), last)

    @property
    def step(self) -> float:
        """Mean seconds from one picture to the next; 0 for a single picture."""
        return float(self.starts[-1] - self.starts[0]) / max(1, len(self.starts) - 1)

    @property
    def seconds(self) -> float:
        """From the first picture to the end of the last one."""
        usual = float(np.median(np.diff(self.starts))) if len(self.starts) > 1 else 0.0
        return float(self.starts[-1] - self.starts[0]) + (self.last or usual)

    @property
    def regular(self) -> bool:
        """Whether the pictures come at a constant rate."""
        if len(self.starts) == 1 or not self.step:
            return True
        places = self.starts[0] + self.step * np.arange(len(self.starts))
        furthest = float(np.abs(self.starts - places).max())
        return furthest <= _REGULAR * self.step and self.last <= _LONGEST_LAST * self.step


def frame_indices(count: int, wanted: int) -> np.ndarray:
    """Indices of the frames to take: the middles of `wanted` equal parts, with duplicates in short files.

    `round(((count - 1) / wanted) * (i + 0.5) + 1e-6)`, half to even, as the released code computes it.

    Args:
        count: frames in the file, at least 1.
        wanted: frames per clip.

    Returns:
        int64 [wanted], not decreasing.
    """
    return np.round((count - 1) / wanted * (np.arange(wanted) + 0.5) + 1e-6).astype(np.int64)


def chosen_frames(count: int, times: Times | None, wanted: int) -> list[int]:
    """Indices of the frames to take, [wanted], not decreasing.

    At a variable rate these are the pictures that are on the screen in the middles of `wanted` equal spans of
    time; otherwise, or if times are unknown or not those of `count` pictures, as `frame_indices`.

    Args:
        count: frames in the file, at least 1.
        times: of the frames.
        wanted: frames per clip.
    """
    if times is None or len(times.starts) != count or times.regular:
        return [int(index) for index in frame_indices(count, wanted)]
    middles = times.starts[0] + times.seconds / wanted * (np.arange(wanted) + 0.5)
    chosen: list[int] = (np.searchsorted(times.starts, middles, side="right") - 1).tolist()
    return chosen
