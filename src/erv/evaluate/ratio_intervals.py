"""Intervals of a difference between two shares that are counted among different clips.

Inconsistency is counted among right answers, and two policies are right on different clips. So Tango's
interval doesn't apply: there is no one number of pairs. These intervals are built from Wilson's interval of
either share and the correlation of the two (MOVER: Zou and Donner, 2008; for pairs Newcombe, 1998, method
10). Unlike percentiles of a bootstrap they have a width where an explanation is never inconsistent.

The correlation is computed with four more clips: two for which only one policy counts, and two for which only
the other does. Without them, the difference of two policies that no clip tells apart would be zero for
certain. With them its interval is about as wide as Tango's, whose ends are then z^2 / (n + z^2).

On 216 simulated clips, 95% intervals as blended in `erv.evaluate.intervals` hold the truth in 94 to 99% of
cases, those of the bootstrap in 91 to 95%; `tests/unit/evaluate/test_ratio_intervals.py` computes some.
"""

from __future__ import annotations

import numpy as np

from erv.evaluate.outcomes import Term
from erv.evaluate.score_intervals import share_score

_ADDED = 2  # clips in each direction


def ratio_score(later: Term, earlier: Term, confidence: float) -> tuple[float, float]:
    """The interval of the later policy's share minus the earlier one's, on the same clips.

    Args:
        later: which clips count, and among which, both with at least one clip to count among.
        earlier: the same of the other policy.
        confidence: e.g. 0.95.

    Returns:
        Both ends, -1..1.
    """
    (p, p_low, p_high), (q, q_low, q_high) = (_wilson(term, confidence) for term in (later, earlier))
    rho = _correlation(later, earlier)
    down, up = (p - p_low, q_high - q), (p_high - p, q - q_low)
    low, high = (np.sqrt(max(mine**2 + other**2 - 2 * rho * mine * other, 0.0)) for mine, other in (down, up))
    return float(p - q - low), float(p - q + high)


def outcome_counts(later: Term, earlier: Term) -> list[int]:
    """How many clips speak for each side of all that has to vary for a bootstrap to say something.

    Of either policy the clips that count and those that don't; and the clips that tell the two apart.
    """
    counts = []
    for term in (later, earlier):
        k, m = _counts(term)
        counts += [k, m - k]
    apart = (later.over != earlier.over) | (_among(later) != _among(earlier))
    return [*counts, int(apart.sum())]


def _wilson(term: Term, confidence: float) -> tuple[float, float, float]:
    k, m = _counts(term)
    return (k / m, *share_score([k], [m], confidence))


def _correlation(later: Term, earlier: Term) -> float:
    """Of the two shares, from what each clip contributes to them; at least 0."""
    parts = []
    for term, sign in ((later, 1), (earlier, -1)):
        k, m = _counts(term)
        share = k / m
        mine = term.over - share * _among(term)
        # An added clip that counts for one policy doesn't for the other.
        added = np.repeat([1 - share, -share][::sign], _ADDED)
        parts.append(np.concatenate([mine, added]))
    first, second = parts
    spread = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return max(0.0, float((first * second).sum()) / spread) if spread else 0.0


def _counts(term: Term) -> tuple[int, int]:
    return int(term.over.sum()), int(_among(term).sum())


def _among(term: Term) -> np.ndarray:
    return np.ones_like(term.over) if term.of is None else term.of
