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

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from erv.evaluate.intervals import Interval
from erv.evaluate.metrics import LOWER_IS_BETTER
from erv.evaluate.outcomes import Term

BETTER, WORSE, UNCLEAR = "better", "worse", "can't tell"
_EXCHANGES = 1999  # random ones, where there are more than that; the least p-value is then 0.001


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
        tests: `p` by metric, and what else the test knows; only these metrics get a verdict.
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
    weights = 1.0 / np.bincount(emotions)[emotions]
    apart = later != earlier
    moved = ((later - earlier) * weights)[apart]
    if not len(moved):
        return {"p": 1.0}
    return {"p": _permuted((moved,), _sum, seed)}


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
    first, second = (term.over + term.of for term in (later, earlier))  # 0 outside, 1 consistent, 2 not
    apart, same = first != second, first[first == second]
    if not apart.any():
        return {"p": 1.0}
    k, m = (same == 2).sum(), (same >= 1).sum()

    def share(codes: np.ndarray, axis: int) -> Any:
        return (k + (codes == 2).sum(axis=axis)) / np.maximum(m + (codes >= 1).sum(axis=axis), 1)

    def gap(mine: np.ndarray, other: np.ndarray, axis: int) -> Any:
        return share(mine, axis) - share(other, axis)

    return {"p": _permuted((first[apart], second[apart]), gap, seed)}


def _shown(p: float) -> float:
    """Six digits that count, so that no p-value becomes 0."""
    return float(f"{p:.6g}")


def _sum(values: np.ndarray, axis: int) -> Any:
    return values.sum(axis=axis)


def _permuted(data: tuple[np.ndarray, ...], statistic: Any, seed: Sequence[int]) -> float:
    from scipy.stats import permutation_test

    if len(data[0]) == 1:  # scipy wants two; a clip on which both are outside changes nothing
        data = tuple(np.append(part, 0.0) for part in data)
    # One sample is permuted by its signs, two by exchanging the members of each pair.
    result = permutation_test(
        data,
        statistic,
        permutation_type="samples",
        n_resamples=_EXCHANGES,
        vectorized=True,
        batch=max(1, 4_000_000 // len(data[0])),
        rng=np.random.default_rng(list(seed)),
    )
    return float(result.pvalue)
