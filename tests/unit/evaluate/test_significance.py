"""Tests of differences agree with scipy and statsmodels, and verdicts know which way is better."""

import itertools

import numpy as np
import pytest
from scipy.stats import binomtest, permutation_test
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_effectsize

from erv.evaluate.compare import compare
from erv.evaluate.outcomes import Term
from erv.evaluate.significance import holm, in_words, ratio_test, recall_test, share_test, verdicts

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    "p_values", [[0.01], [0.01, 0.01, 0.04, 0.03], [0.9, 0.001, 0.2, 0.02, 0.8, 0.02], [1.0, 0.0]]
)
def test_holm_is_that_of_statsmodels(p_values):
    assert holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]))


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (5, 1), (30, 12), (0, 9)])
def test_shares_are_tested_by_mcnemar(gained, lost):
    later = np.repeat([1, 0, 1, 0], [gained, lost, 20, 10])
    earlier = np.repeat([0, 1, 1, 0], [gained, lost, 20, 10])
    found = share_test(later, earlier)
    assert (found["gained"], found["lost"]) == (gained, lost)
    assert found["p"] == pytest.approx(mcnemar([[20, gained], [lost, 10]], exact=True).pvalue)
    if gained + lost:
        assert found["p"] == pytest.approx(binomtest(gained, gained + lost).pvalue)


def test_a_mean_of_recalls_is_tested_by_all_exchanges_where_they_are_few():
    emotions = np.array([0] * 4 + [1] * 10 + [2] * 2)
    later = np.array([1, 1, 1, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1, 0, 1, 1])
    earlier = np.array([0, 1, 0, 1, 1, 0, 0, 0, 1, 0, 1, 0, 1, 0, 0, 1])
    weights = 1 / np.bincount(emotions)[emotions]
    moved = ((later - earlier) * weights)[later != earlier]
    sums = [np.dot(moved, signs) for signs in itertools.product((1, -1), repeat=len(moved))]
    low, high = (np.mean([test(s, moved.sum()) for s in sums]) for test in (
        lambda a, b: a <= b + 1e-12, lambda a, b: a >= b - 1e-12))  # fmt: skip
    assert recall_test(later, earlier, emotions, [0])["p"] == pytest.approx(min(1.0, 2 * min(low, high)))
    assert recall_test(later, later, emotions, [0])["p"] == 1.0


def test_a_mean_of_recalls_over_equal_emotions_is_a_share():
    """With one emotion UAR is WAR, whose exact test is McNemar's."""
    later, earlier = RNG.random(40) < 0.7, RNG.random(40) < 0.6
    later, earlier = later.astype(float), earlier.astype(float)
    found = recall_test(later, earlier, np.zeros(40, dtype=int), [0])["p"]
    assert found == pytest.approx(share_test(later, earlier)["p"], abs=0.03)  # 4999 of 2^n exchanges


def ratio(codes):
    codes = np.array(codes)
    return Term((codes == 2).astype(np.float32), (codes >= 1).astype(np.float32))


def test_a_ratio_is_tested_by_all_exchanges_where_they_are_few():
    later, earlier = np.array([1, 1, 2, 1, 0, 1, 1, 2, 1, 1]), np.array([2, 2, 2, 1, 1, 0, 2, 2, 1, 2])

    def gap(first, second):
        return (first == 2).sum() / (first > 0).sum() - (second == 2).sum() / (second > 0).sum()

    gaps = []
    for turned in itertools.product((False, True), repeat=10):
        turn = np.array(turned)
        gaps.append(gap(np.where(turn, earlier, later), np.where(turn, later, earlier)))
    found, gaps = gap(later, earlier), np.array(gaps)
    expected = 2 * min(np.mean(gaps <= found + 1e-12), np.mean(gaps >= found - 1e-12))
    assert ratio_test(ratio(later), ratio(earlier), [0])["p"] == pytest.approx(expected)


def scipys(first, second, statistic):
    """Scipy's own permutation test on the clips that tell the two apart."""
    result = permutation_test(
        (first, second), statistic, permutation_type="samples", n_resamples=4999, vectorized=True, rng=1
    )
    return result.pvalue


@pytest.mark.parametrize("clips", [11, 60])
def test_permutations_are_those_of_scipy(clips):
    """Exactly where all exchanges are tried, closely where both draw some."""
    later, earlier = RNG.integers(0, 3, size=(2, clips))
    apart = later != earlier
    k, m = (later[~apart] == 2).sum(), (later[~apart] > 0).sum()

    def share(codes, axis):
        return (k + (codes == 2).sum(axis=axis)) / np.maximum(m + (codes > 0).sum(axis=axis), 1)

    expected = scipys(later[apart], earlier[apart], lambda a, b, axis: share(a, axis) - share(b, axis))
    found = ratio_test(ratio(later), ratio(earlier), [0])["p"]
    assert found == pytest.approx(expected, abs=1e-9 if apart.sum() <= 12 else 0.03)

    emotions = RNG.integers(0, 3, size=clips)
    right, before = (later > 0).astype(float), (earlier > 0).astype(float)
    apart = right != before
    weights = (1 / np.bincount(emotions)[emotions])[apart]
    expected = scipys(
        (right[apart] * weights), (before[apart] * weights), lambda a, b, axis: (a - b).sum(axis=axis)
    )
    found = recall_test(right, before, emotions, [0])["p"]
    assert found == pytest.approx(expected, abs=1e-9 if apart.sum() <= 12 else 0.03)


def test_a_ratio_without_a_clip_or_a_difference_is_no_evidence():
    assert ratio_test(ratio([0, 0]), ratio([1, 2]), [0])["p"] == 1.0
    assert ratio_test(ratio([0, 1, 2]), ratio([0, 1, 2]), [0])["p"] == 1.0
    assert ratio_test(ratio([1, 1, 2]), ratio([1, 2, 2]), [0])["p"] == 1.0  # one clip says nothing


@pytest.mark.parametrize(
    ("metric", "low", "high", "expected"),
    [
        ("EEA", 0.01, 0.2, "better"),
        ("EEA", -0.2, -0.01, "worse"),
        ("EEA", 0.0, 0.2, "can't tell"),
        ("inconsistency", -0.2, -0.01, "better"),
        ("inconsistency", 0.01, 0.2, "worse"),
        ("inconsistency", None, None, "can't tell"),
    ],
)
def test_a_verdict_knows_the_direction(metric, low, high, expected):
    assert in_words(metric, {"value": low, "low": low, "high": high}) == expected


def test_a_verdict_needs_the_corrected_p_value_and_the_interval():
    interval = {"value": 0.1, "low": 0.02, "high": 0.2}
    sides = (
        {m: {"value": 0.6, "low": 0, "high": 1} for m in "ab"},
        {m: {"value": 0.5, "low": 0, "high": 1} for m in "ab"},
    )
    clear, two = (
        verdicts({"a": interval, "b": interval}, *sides, {"a": {"p": p}, "b": {"p": 0.9}}, 0.95)["a"]
        for p in (0.02, 0.03)
    )
    assert (clear["p_holm"], clear["verdict"]) == (0.04, "better")
    assert (two["p_holm"], two["verdict"]) == (0.06, "can't tell")
    assert clear["effect"] == pytest.approx(proportion_effectsize(0.6, 0.5), abs=1e-6)
    wide = {"a": {"value": 0.1, "low": -0.01, "high": 0.2}}
    assert verdicts(wide, *sides, {"a": {"p": 0.001}}, 0.95)["a"]["verdict"] == "can't tell"


def row(clip, right, judged):
    answer = "anger" if right else "fear"
    return {
        "dataset": "mafw",
        "clip_id": f"{clip:03d}",
        "split": "test",
        "label": "anger",
        "completion": f"<think>{judged}.</think><answer>{answer}</answer>",
        "predicted": answer,
        "judged": judged,
        "sentences": 1,
    }


def test_the_comparison_has_a_verdict_on_every_metric():
    before = [row(i, i < 40, "anger" if i % 2 else "fear") for i in range(60)]
    after = [row(i, i < 40, "anger") for i in range(60)]
    found = compare({"before": before, "after": after}, samples=400, confidence=0.95, seed=0)
    said = found["verdicts"]["after-before"]["overall"]
    assert {metric: item["verdict"] for metric, item in said.items()} == {
        "WAR": "can't tell", "UAR": "can't tell", "EEA": "better", "EPC": "can't tell", "FCR": "better",
        "inconsistency": "better",
    }  # fmt: skip
    assert (said["WAR"]["p"], said["WAR"]["effect"]) == (1.0, 0.0)
    assert (said["EEA"]["gained"], said["EEA"]["lost"]) == (30, 0)
    assert said["EEA"]["p"] == pytest.approx(2 * 0.5**30, rel=1e-5)  # small, but not 0
    assert said["EEA"]["p_holm"] >= said["EEA"]["p"]
    assert compare({"before": before, "after": after}, samples=400, confidence=0.95, seed=0) == found
