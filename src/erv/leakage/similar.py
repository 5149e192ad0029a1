"""Finds clips of two groups that look and sound the same.

Frames are compared by matrix products in blocks, so that 26,000 clips take seconds; the sound is compared
only for pairs whose frames agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from erv.errors import DataError
from erv.leakage.fingerprints import Fingerprint, sound_similarity
from erv.settings import LeakageSettings

_BLOCK = 2048


@dataclass(frozen=True)
class Match:
    """Two clips that are the same.

    Attributes:
        one: index into the first group.
        other: index into the second group.
        frames: correlation of the frames, up to 1.
        sound: correlation of the sound, up to 1; None if one of the clips has no sound to compare.
    """

    one: int
    other: int
    frames: float
    sound: float | None


def matches(
    first: Sequence[Fingerprint], second: Sequence[Fingerprint], settings: LeakageSettings
) -> Iterator[Match]:
    """All pairs of a clip of each group that are the same.

    Args:
        first: fingerprints of the first group.
        second: of the second.
        settings: the section `leakage`.

    Raises:
        DataError: clips have different numbers of frames.
    """
    ours, theirs = _stacked(first), _stacked(second)
    if not ours or not theirs:
        return
    if ours[1].shape[1] != theirs[1].shape[1]:
        raise DataError("clips have different numbers of frames; run extract again for all data sets")
    for start in range(0, len(ours[0]), _BLOCK):
        for begin in range(0, len(theirs[0]), _BLOCK):
            alike = ours[1][start : start + _BLOCK] @ theirs[1][begin : begin + _BLOCK].T
            for row, column in np.argwhere(alike >= settings.frames):
                one, other = ours[0][start + row], theirs[0][begin + column]
                found = _compared(one, other, float(alike[row, column]), first[one], second[other], settings)
                if found is not None:
                    yield found


def _compared(
    one: int, other: int, frames: float, a: Fingerprint, b: Fingerprint, settings: LeakageSettings
) -> Match | None:
    """The match, if the sounds agree too; without a sound to compare, the frames must agree more closely."""
    if a.sound is None or b.sound is None:
        return Match(one, other, frames, None) if frames >= settings.frames_alone else None
    sound = sound_similarity(a.sound, b.sound)
    return Match(one, other, frames, sound) if sound >= settings.sound else None


def _stacked(prints: Sequence[Fingerprint]) -> tuple[list[int], np.ndarray] | None:
    """Indices of the fingerprints with frames, and these frames [n, D]; None if there are none."""
    seen = [index for index, item in enumerate(prints) if item.frames is not None]
    if not seen:
        return None
    vectors = [prints[index].frames for index in seen]
    if len({len(vector) for vector in vectors if vector is not None}) > 1:
        raise DataError("clips have different numbers of frames; run extract again for all data sets")
    return seen, np.stack([vector for vector in vectors if vector is not None])
