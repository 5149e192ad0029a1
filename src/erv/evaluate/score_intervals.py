"""Score intervals of shares, of paired differences, and of their means over groups.

An interval holds the values that a score test doesn't reject: those so close to what was found that the
difference is at most z standard errors, computed as if the value were true (and the rest as likely as it then
can be). With one group these are the intervals of Wilson (1927) for a share and of Tango (1998) for a paired
difference. With several, the quantity is the mean over groups, each of the same weight, as UAR is the mean of
the emotions' recalls. Unlike percentiles of a bootstrap they have a width where all clips count alike, and
they are close to their nominal coverage with few clips.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np

_HALVINGS = 45  # of a bracket; the ends are then exact to more digits than are reported
_FAR = 1e9  # a multiplier beyond which no share moves any more
_STEPS = 60  # of Newton's method, which needs about ten
_TINY = 1e-300


def share_score(right: Sequence[int], counts: Sequence[int], confidence: float) -> tuple[float, float]:
    """The interval of the mean, over groups, of the share that counts.

    Args:
        right: how many count, by group.
        counts: how many there are, by group; all positive.
        confidence: e.g. 0.95.

    Returns:
        Both ends, 0..1.
    """
    k, n = np.asarray(right, dtype=float), np.asarray(counts, dtype=float)

    def tilted(multiplier: float) -> tuple[float, float]:
        """Mean and its variance, for the likeliest shares moved by this multiplier."""
        if multiplier == 0.0:
            p = k / n
        else:
            # The root of m p^2 + (n - m) p - k = 0 between 0 and 1, in a form without cancellation.
            half = n - multiplier
            root = np.sqrt(half**2 + 4 * multiplier * k)
            p = np.where(half > 0, 2 * k / np.maximum(half + root, _TINY), (root - half) / (2 * multiplier))
        return float(p.mean()), float((p * (1 - p) / n).sum()) / len(n) ** 2

    found = float((k / n).mean())
    low = 0.0 if found == 0.0 else _end(tilted, found, confidence, up=False)
    high = 1.0 if found == 1.0 else _end(tilted, found, confidence, up=True)
    return low, high


def paired_score(
    gained: Sequence[int], lost: Sequence[int], counts: Sequence[int], confidence: float
) -> tuple[float, float]:
    """The interval of the mean, over groups, of (gained - lost) / count.

    Args:
        gained: pairs in which only the later counts, by group.
        lost: pairs in which only the earlier counts, by group.
        counts: pairs, by group; all positive.
        confidence: e.g. 0.95.

    Returns:
        Both ends, -1..1.
    """
    b, c, n = (np.asarray(values, dtype=float) for values in (gained, lost, counts))
    found = float(((b - c) / n).mean())
    low = -1.0 if found == -1.0 else _end(lambda m: _tilted_pairs(b, c, n, m), found, confidence, up=False)
    high = 1.0 if found == 1.0 else _end(lambda m: _tilted_pairs(b, c, n, m), found, confidence, up=True)
    return low, high


def _tilted_pairs(b: np.ndarray, c: np.ndarray, n: np.ndarray, multiplier: float) -> tuple[float, float]:
    """Mean difference and its variance, for the likeliest shares moved by this multiplier.

    With P(gained) = b / (l - m), P(lost) = c / (l + m) and P(equal) = (n - b - c) / l, where l, by group, is
    what makes them add up to 1. If nothing is gained (or lost), l can end at |m| and the rest is gained.
    """
    equal, edge = n - b - c, abs(multiplier)
    toward, away = (b, c) if multiplier >= 0 else (c, b)  # what the multiplier makes more frequent, and less

    # Newton's method for the level, from below, where the shares add up to 1 or more. Their sum is convex and
    # falls with the level, so no step goes too far.
    level = np.maximum.reduce([toward + edge, away - edge, equal])
    parts, shifts = np.stack([toward, away, equal]), np.array([[-edge], [edge], [0.0]])
    for _ in range(_STEPS):
        spans = np.maximum(level + shifts, _TINY)
        shares = parts / spans
        step = (shares.sum(axis=0) - 1.0) / np.maximum((shares / spans).sum(axis=0), _TINY)
        level = level + np.maximum(step, 0.0)
        if (step <= 1e-13 * level).all():
            break
    less, same = away / np.maximum(level + edge, _TINY), equal / np.maximum(level, _TINY)
    more = np.clip(1.0 - less - same, 0.0, 1.0)
    delta = (more - less) * (1 if multiplier >= 0 else -1)
    variance = np.maximum(more + less - delta**2, 0.0) / n
    return float(delta.mean()), float(variance.sum()) / len(n) ** 2


def _end(
    tilted: Callable[[float], tuple[float, float]], found: float, confidence: float, *, up: bool
) -> float:
    """The value farthest from `found`, up or down, that the score test does not reject."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    sign = 1.0 if up else -1.0

    def kept(size: float) -> bool:
        value, variance = tilted(sign * size)
        return (value - found) ** 2 <= z * z * variance

    near, far = 0.0, 1.0
    while kept(far) and far < _FAR:
        near, far = far, 2 * far
    for _ in range(_HALVINGS):
        middle = (near + far) / 2
        near, far = (middle, far) if kept(middle) else (near, middle)
    return tilted(sign * near)[0]
