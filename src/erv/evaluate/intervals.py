"""Intervals of metrics and of paired differences.

Percentiles of bootstrap draws where the clips vary enough for draws to say something, else score intervals
(`erv.evaluate.score_intervals`). What decides is how many clips don't do what most do: the fewer of "counts"
and "doesn't", or the pairs outside the commonest of "gained", "lost" and "equal". Up to `FEW` of them it is
the score interval alone, from `ENOUGH` on the bootstrap, and in between a mean that passes from one to the
other. So more evidence doesn't look weaker: a clip that counts in addition moves both ends up, or lets them
stand, to a tenth of a clip.

The bounds come from coverage: of 95% intervals of a share of 216 clips, those of the bootstrap hold the truth
in 86, 92, 95 and 94% of cases if 2, 5, 10 and 20 clips count on average (at the worst rates nearby 83, 88, 93
and 93%), score intervals in 95% throughout (94%), and these in 95, 96, 97 and 96% (94, 94, 95, 95%). Paired
differences: 88, 91 and 95% at 3, 6 and 10 pairs that differ, most of them in one direction, against 93% or
more. `tests/unit/evaluate/test_intervals.py` computes them.

A mean of recalls (UAR) is decided by the emotion that varies least: a bootstrap sees no spread in an emotion
that is always or never recognised, however few clips it has.

Inconsistency is a share of the right answers, whose number varies with the clips too. Of one policy, the
score interval is Wilson's among its right answers; of two, that of `erv.evaluate.ratio_intervals`.

Metrics of sets (`erv.evaluate.sets`) are means of parts of clips. A part varies less than a whole clip that
counts or doesn't, as x^2 <= x between 0 and 1, so the score intervals of shares are wide enough for them.
"""

from __future__ import annotations

import numpy as np

from erv.evaluate.outcomes import Term
from erv.evaluate.ratio_intervals import outcome_counts, ratio_score
from erv.evaluate.score_intervals import paired_score, share_score

# value, low and high; all None if the metric is not defined, because there was nothing to count among.
Interval = dict[str, float | None]

FEW = 10
ENOUGH = 20


def share_interval(
    right: np.ndarray, groups: np.ndarray, value: float, draws: np.ndarray, confidence: float
) -> Interval:
    """The interval of a metric: of a share of clips, or of the mean of such shares over groups.

    Args:
        right: which clips count, [clips]; or how much of each, 0..1, which varies less than all or nothing.
        groups: the group of each clip, int [clips] from 0; for UAR its emotion, otherwise 0 for all.
        value: the metric, 0..1.
        draws: the metric on bootstrap draws, float [draws].
        confidence: e.g. 0.95.
    """
    counts, k = np.bincount(groups), np.bincount(groups, weights=right)
    weight = _weight_of_score([k, counts - k])
    score = share_score(k.tolist(), counts.tolist(), confidence) if weight else (0.0, 0.0)
    return _blended(value, draws, confidence, score, weight)


def difference_interval(
    later: np.ndarray,
    earlier: np.ndarray,
    groups: np.ndarray,
    value: float,
    draws: np.ndarray,
    confidence: float,
) -> Interval:
    """The interval of a paired difference.

    Args:
        later: which clips count for the later policy, or how much of each, [clips].
        earlier: which clips count for the earlier policy, [clips].
        groups: as for `share_interval`.
        value: the later policy's metric minus the earlier one's, -1..1.
        draws: the difference on bootstrap draws, float [draws].
        confidence: e.g. 0.95.
    """
    counts = np.bincount(groups)
    gap = np.subtract(later, earlier, dtype=np.float64)
    gained = np.bincount(groups, weights=np.maximum(gap, 0.0))
    lost = np.bincount(groups, weights=np.maximum(-gap, 0.0))
    weight = _weight_of_score([gained, lost, counts - gained - lost])
    score = (
        paired_score(gained.tolist(), lost.tolist(), counts.tolist(), confidence) if weight else (0.0, 0.0)
    )
    return _blended(value, draws, confidence, score, weight)


def ratio_interval(term: Term, value: float, draws: np.ndarray, confidence: float) -> Interval:
    """The interval of a share that is counted among some clips only.

    Args:
        term: which clips count, and among which.
        value: the share; NaN if there is no clip to count among.
        draws: the share on bootstrap draws, float [draws], NaN where a draw has nothing to count among.
        confidence: e.g. 0.95.
    """
    if term.of is None or np.isnan(value):
        return undefined()
    right = term.over[term.of > 0]
    return share_interval(right, np.zeros(len(right), dtype=int), value, _defined(draws), confidence)


def ratio_difference_interval(
    later: Term, earlier: Term, value: float, draws: np.ndarray, confidence: float
) -> Interval:
    """The interval of a paired difference between two such shares; arguments as above, value -1..1."""
    if np.isnan(value):
        return undefined()
    weight = _weight(min(outcome_counts(later, earlier)))
    score = ratio_score(later, earlier, confidence) if weight else (0.0, 0.0)
    return _blended(value, _defined(draws), confidence, score, weight)


def mean_interval(value: float, draws: np.ndarray, confidence: float) -> Interval:
    """Percentiles alone: for a mean that is no share, like the number of words, or a difference of two."""
    return _blended(value, draws, confidence, (0.0, 0.0), 0.0)


def undefined() -> Interval:
    """Of a metric that is not defined: there is no clip to count among."""
    return {"value": None, "low": None, "high": None}


def _defined(draws: np.ndarray) -> np.ndarray:
    kept: np.ndarray = draws[~np.isnan(draws)]
    return kept


def _weight_of_score(outcomes: list[np.ndarray]) -> float:
    """1 where a bootstrap can't be trusted, 0 where it can.

    Args:
        outcomes: how many clips have each outcome, by group.
    """
    others = sum(outcomes) - np.maximum.reduce(outcomes)
    return _weight(others.min())


def _weight(others: float) -> float:
    return float(np.clip((ENOUGH - others) / (ENOUGH - FEW), 0.0, 1.0))


def _blended(
    value: float, draws: np.ndarray, confidence: float, score: tuple[float, float], weight: float
) -> Interval:
    tail = 100 * (1 - confidence) / 2
    percentiles = np.percentile(draws, [tail, 100 - tail])
    low, high = weight * np.array(score) + (1 - weight) * percentiles if weight else percentiles
    return {"value": round(float(value), 6), "low": round(float(low), 6), "high": round(float(high), 6)}
