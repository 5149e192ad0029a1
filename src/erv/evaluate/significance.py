"""Whether two policies differ: tests on the same clips, corrected for several metrics, and sizes of effects.

A share of clips is tested by McNemar's exact test. UAR and inconsistency aren't shares of the same clips, so
theirs is a permutation test: if the policies did not differ, each clip's two results could as well be
exchanged. Where few clips tell the policies apart, all exchanges are tried, so it is exact there. P-values
are corrected over the metrics of a pair (Holm, 1979), which holds however the metrics depend on each other.

The size of an effect is Cohen's h, twice the difference of the arcsines of the shares' square roots: 0.2 is
called small, 0.5 medium and 0.8 large. The odds ratio of the pairs that differ would be infinite as soon as
they all differ in one direction; `gained` and `lost` give it where it is wanted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from erv.evaluate.intervals import Interval
from erv.evaluate.metrics import LOWER_IS_BETTER
from erv.evaluate.outcomes import Term

BETTER, WORSE, UNCLEAR = "better", "worse", "can't tell"
_FEW = 12  # clips that tell two policies apart: up to here all exchanges are tried
_EXCHANGES = 4999  # beyond, this many random ones; the least p-value is then 0.0004


def verdicts(
    differences: Mapping[str, Interval],
    later: Mapping[str, Interval],
    earlier: Mapping[str, Interval],
    tests: Mapping[str, Mapping[str, Any]],
    confidence: float,
) -> dict[str, dict[str, Any]]:
    """What the differences say, in words, over metrics that are tested together.

    Args:
        differences: the later policy minus the earlier one, by metric.
        later: the later policy's metrics.
        earlier: the earlier policy's metrics.
        tests: `p` by metric, and what else the test knows. All are corrected together; those that are among
            the differences get a verdict.
        confidence: of the intervals; 1 - confidence is the error allowed over all these metrics.

    Returns:
        By metric `verdict` (`better` or `worse` for the later policy, or `can't tell`), `p`, `p_holm`,
        `effect` (Cohen's h, in the direction of the difference; None if a metric is not defined), and what
        `tests` holds. It is `better` or `worse` only if the corrected p-value is below 1 - confidence and
        the interval of the difference lies on that side of zero.
    """
    from statsmodels.stats.proportion import proportion_effectsize

    if not tests:
        return {}
    corrected = holm([float(test["p"]) for test in tests.values()])
    found = {}
    for (metric, test), p_holm in zip(tests.items(), corrected, strict=True):
        if metric not in differences:
            continue
        values = [side[metric]["value"] for side in (later, earlier)]
        undefined = None in values
        found[metric] = {
            **test,
            "p": _shown(test["p"]),
            "p_holm": _shown(p_holm),
            "effect": None if undefined else round(float(proportion_effectsize(*values)), 6),
            "verdict": UNCLEAR
            if undefined or p_holm >= 1 - confidence
            else in_words(metric, differences[metric]),
        }
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's corrected p-values, in the given order.

    The same as `multipletests(method="holm")` of statsmodels, which collects garbage on every call: a tenth
    of a second each, for every pair of policies in every scope and for every judge.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return [float(value) for value in corrected]


def in_words(metric: str, interval: Interval) -> str:
    """`better` or `worse` if the interval of a difference lies on one side of zero, else `can't tell`."""
    low, high = interval["low"], interval["high"]
    if low is None or high is None or low <= 0 <= high:
        return UNCLEAR
    return BETTER if (low > 0) != (metric in LOWER_IS_BETTER) else WORSE


def share_test(later: np.ndarray, earlier: np.ndarray) -> dict[str, Any]:
    """McNemar's exact test of two shares of the same clips.

    Args:
        later: which clips count for the later policy, [clips].
        earlier: which clips count for the earlier policy, [clips].

    Returns:
        `p` (two-sided), `gained` and `lost`: clips that count only for the later, or only for the earlier.
    """
    from statsmodels.stats.contingency_tables import mcnemar

    gained, lost = int((later > earlier).sum()), int((earlier > later).sum())
    p = mcnemar([[0, gained], [lost, 0]], exact=True).pvalue
    return {"p": float(p), "gained": gained, "lost": lost}


def recall_test(
    later: np.ndarray, earlier: np.ndarray, emotions: np.ndarray, seed: Sequence[int]
) -> dict[str, Any]:
    """A permutation test of two means of recalls (UAR) on the same clips.

    Args:
        later: which clips the later policy answers rightly, [clips].
        earlier: the same of the earlier policy.
        emotions: the true emotion of each clip as a number from 0, int [clips].
        seed: of the random exchanges.

    Returns:
        `p` (two-sided).
    """
    gains = (later.astype(float) - earlier) / np.bincount(emotions)[emotions]
    moved = gains[later != earlier]
    if not len(moved):
        return {"p": 1.0}
    # Exchanged, a clip's gain is a loss.
    gaps = [2 * (exchanged @ moved) - moved.sum() for exchanged in _exchanges(len(moved), seed)]
    return {"p": _two_sided(np.concatenate(gaps), moved.sum(), len(moved))}


def ratio_test(later: Term, earlier: Term, seed: Sequence[int]) -> dict[str, Any]:
    """A permutation test of two shares that are counted among different clips (inconsistency).

    Args:
        later: which clips count, and among which.
        earlier: the same of the other policy.
        seed: of the random exchanges.

    Returns:
        `p` (two-sided); 1 if either is not defined.
    """
    if later.of is None or earlier.of is None or not (later.of.any() and earlier.of.any()):
        return {"p": 1.0}
    apart = (later.over != earlier.over) | (later.of != earlier.of)
    if not apart.any():
        return {"p": 1.0}
    mine, other = (
        np.stack([over, of], axis=1).astype(float)
        for over, of in ((later.over, later.of), (earlier.over, earlier.of))
    )
    both = mine.sum(axis=0) + other.sum(axis=0)

    def gap(sums: np.ndarray) -> np.ndarray:
        """The difference, from k and m of the one policy; the other has the rest."""
        rest = both - sums
        found: np.ndarray = sums[:, 0] / np.maximum(sums[:, 1], 1) - rest[:, 0] / np.maximum(rest[:, 1], 1)
        return found

    # What the later policy has, if it keeps its own where the exchange says 1, else gets the other's.
    fixed, moved = mine[~apart].sum(axis=0) + other[apart].sum(axis=0), (mine - other)[apart]
    gaps = [gap(fixed + kept @ moved) for kept in _exchanges(len(moved), seed)]
    return {"p": _two_sided(np.concatenate(gaps), gap(mine.sum(axis=0)[None])[0], len(moved))}


def _exchanges(clips: int, seed: Sequence[int]) -> Iterator[np.ndarray]:
    """Rows of 0 and 1 by clip, in pieces that fit in memory: all there are, or random ones.

    The same as scipy's `permutation_test` does, which takes five times as long.
    """
    if clips <= _FEW:
        yield (np.arange(2**clips)[:, None] >> np.arange(clips)) & 1
        return
    stream = np.random.default_rng(list(seed))
    piece = max(1, 4_000_000 // clips)
    for start in range(0, _EXCHANGES, piece):
        yield stream.integers(0, 2, size=(min(piece, _EXCHANGES - start), clips)).astype(float)


def _two_sided(gaps: np.ndarray, found: float, clips: int) -> float:
    """The share of exchanges that give such a gap or a larger one, twice the smaller of both directions.

    What was found counts as one of the random exchanges; all exchanges have it anyway.
    """
    added, slack = (0 if clips <= _FEW else 1), 1e-12
    ends = ((gaps <= found + slack).sum(), (gaps >= found - slack).sum())
    return min(1.0, 2 * (float(min(ends)) + added) / (len(gaps) + added))


def _shown(p: float) -> float:
    """Six digits that count, so that no p-value becomes 0."""
    return float(f"{p:.6g}")
