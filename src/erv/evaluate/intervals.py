"""Intervals of metrics and of paired differences.

Percentiles of bootstrap draws, except where the draws can't spread because all clips count alike: a share of
0 or 1, or two policies that differ on no clip (or on all clips in the same direction). There the score
interval takes over: Wilson's (1927) for a share, and Tango's (1998) for a paired difference, which in these
cases has the same width. So 0 of 18 clips is 0 to 17.6%, not 0 to 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Interval = dict[str, float]


def share_interval(value: float, draws: np.ndarray, size: int, confidence: float) -> Interval:
    """The interval of a metric.

    Args:
        value: the metric, 0..1.
        draws: the metric on bootstrap draws, float [draws].
        size: number of clips; for UAR see `effective_size`.
        confidence: e.g. 0.95.
    """
    if value == 0.0:
        return _interval(value, 0.0, _reach(size, confidence))
    if value == 1.0:
        return _interval(value, 1.0 - _reach(size, confidence), 1.0)
    return _percentiles(value, draws, confidence)


def difference_interval(
    later: np.ndarray, earlier: np.ndarray, value: float, draws: np.ndarray, size: int, confidence: float
) -> Interval:
    """The interval of a paired difference.

    Args:
        later: which clips count for the later policy, [clips].
        earlier: which clips count for the earlier policy, [clips].
        value: the later policy's metric minus the earlier one's, -1..1.
        draws: the difference on bootstrap draws, float [draws].
        size: number of clips; for UAR see `effective_size`.
        confidence: e.g. 0.95.
    """
    if np.array_equal(later, earlier):
        reach = _reach(size, confidence)
        return _interval(0.0, -reach, reach)
    if abs(value) == 1.0:
        inner = 1.0 - _reach(size, confidence)
        return _interval(value, *((inner, 1.0) if value > 0 else (-1.0, -inner)))
    return _percentiles(value, draws, confidence)


def effective_size(counts: Sequence[int]) -> int:
    """How many clips a mean of recalls over classes is worth: classes squared over the sum of 1 / clips.

    With equally frequent classes it is the number of clips; rare classes make it smaller. It gives the mean
    of recalls the variance of a share of as many clips.

    Args:
        counts: clips per class, all positive.
    """
    return max(1, int(len(counts) ** 2 / sum(1.0 / count for count in counts)))


def _reach(size: int, confidence: float) -> float:
    """The upper end of Wilson's interval for 0 of `size`."""
    from scipy.stats import binomtest

    return float(binomtest(0, size).proportion_ci(confidence, method="wilson").high)


def _percentiles(value: float, draws: np.ndarray, confidence: float) -> Interval:
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(draws, [tail, 100 - tail])
    return _interval(value, low, high)


def _interval(value: float, low: float, high: float) -> Interval:
    return {"value": round(float(value), 6), "low": round(float(low), 6), "high": round(float(high), 6)}
