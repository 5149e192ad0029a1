"""Intervals get no weaker with more evidence, and hold the truth about as often as they say."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from erv.evaluate.compare import compare
from erv.evaluate.intervals import ENOUGH, difference_interval, share_interval
from erv.register.gates import decide
from erv.settings.register import GateSettings

EMOTIONS = ["anger", "fear", "sadness"]


def answers(right, count=18):
    """The first `right` of these clips are answered rightly, the others wrongly; nothing is read in them."""
    return [
        {
            "dataset": "mafw",
            "clip_id": f"{clip:03d}",
            "split": "test",
            "label": EMOTIONS[clip % 3],
            "completion": f"{clip < right} {right}",
            "predicted": EMOTIONS[clip % 3] if clip < right else "neutral",
            "judged": None,
            "sentences": 1,
        }
        for clip in range(count)
    ]


def test_one_better_answer_is_not_worth_more_than_the_clips_say():
    """Right on 1 of 18 more was 0 to 16.7%, so it passed a gate that equal answers failed at -17.6%."""
    gate = GateSettings(metric="WAR", minimum=-0.05, against="a")
    for right in (0, 1):
        found = compare({"a": answers(0), "b": answers(right)}, samples=400, confidence=0.95, seed=0)
        (verdict,) = decide([gate], "b", found)
        assert not verdict.passed
    assert found["differences"]["b-a"]["overall"]["WAR"]["low"] == pytest.approx(-0.1301, abs=1e-4)
    share = found["policies"]["b"]["overall"]["WAR"]
    expected = binomtest(1, 18).proportion_ci(0.95, method="wilson")
    assert (share["low"], share["high"]) == pytest.approx((expected.low, expected.high), abs=1e-6)


@pytest.mark.parametrize("clips", [18, 75])
def test_each_further_right_answer_moves_all_ends_up(clips):
    groups = np.zeros(clips, dtype=int)
    picks = np.random.default_rng(0).integers(0, clips, size=(2000, clips))
    earlier = np.arange(clips) < clips // 3
    ends = []
    for right in range(clips + 1):
        later = np.arange(clips) < right
        drawn, gap = later[picks].mean(axis=1), (later.astype(int) - earlier)[picks].mean(axis=1)
        share = share_interval(later, groups, right / clips, drawn, 0.95)
        value = (right - clips // 3) / clips
        difference = difference_interval(later, earlier, groups, value, gap, 0.95)
        ends.append([share["low"], share["high"], difference["low"], difference["high"]])
    # Percentiles move by whole clips, so where the two meet an end can go back, by less than a tenth of one.
    assert np.diff(np.array(ends), axis=0).min() > -0.1 / clips


def test_with_enough_clips_of_both_kinds_it_is_the_bootstrap():
    draws, groups = np.linspace(0.1, 0.9, 101), np.zeros(60, dtype=int)
    right = np.arange(60) < ENOUGH
    assert share_interval(right, groups, 1 / 3, draws, 0.9) == {"value": 0.333333, "low": 0.14, "high": 0.86}
    gap = difference_interval(right, np.zeros(60), groups, 1 / 3, draws, 0.9)
    assert (gap["low"], gap["high"]) == (0.14, 0.86)
    # Of two emotions one is never recognised: its clips don't vary, so the draws say too little.
    halves = np.arange(60) // 30
    assert share_interval(right, halves, 1 / 3, draws, 0.9)["low"] != 0.14


@pytest.mark.parametrize("expected", [2, 5, 10, 15, 20, 30, 50])
def test_95_of_100_intervals_hold_the_truth(expected):
    clips, groups = 216, np.zeros(216, dtype=int)
    held, bootstrap = [], []
    rates = np.linspace(0.9, 1.1, 21) * expected / clips
    counts = np.arange(int(binom.ppf(1 - 1e-6, clips, rates[-1])) + 1)
    grid = np.linspace(0.0005, 0.9995, 1000)
    found = []
    for count in counts:  # the draws of a bootstrap have this distribution
        draws = binom.ppf(grid, clips, count / clips) / clips
        interval = share_interval(np.arange(clips) < count, groups, count / clips, draws, 0.95)
        found.append((interval["low"], interval["high"], *np.percentile(draws, [2.5, 97.5])))
    low, high, drawn_low, drawn_high = np.array(found).T
    for rate in rates:
        chance = binom.pmf(counts, clips, rate)
        held.append(chance[(low <= rate) & (rate <= high)].sum())
        bootstrap.append(chance[(drawn_low <= rate) & (rate <= drawn_high)].sum())
    assert 0.945 < np.mean(held) < 0.97
    assert min(held) > 0.93
    if expected <= 5:
        assert np.mean(bootstrap) < 0.93


@pytest.mark.slow
@pytest.mark.parametrize("rates", [[0.98] * 11, [0.05] * 11, [0.95, 0.05] * 5 + [0.5], [0.97] * 10 + [0.5]])
def test_uar_holds_the_truth_where_a_bootstrap_may_not(rates):
    rng = np.random.default_rng(0)
    counts = np.array([24] * 7 + [12] * 4)  # the demo's test clips by emotion
    groups = np.repeat(np.arange(11), counts)
    one_hot = groups[:, None] == np.arange(11)
    held, bootstrap, truth, cases = 0, 0, np.mean(rates), 400
    for _ in range(cases):
        right = rng.random(len(groups)) < np.array(rates)[groups]
        drawn = rng.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=300)
        with np.errstate(invalid="ignore"):
            draws = np.nanmean((drawn * right) @ one_hot / (drawn @ one_hot), axis=1)
        found = share_interval(right, groups, (right @ one_hot / counts).mean(), draws, 0.95)
        held += found["low"] <= truth <= found["high"]
        low, high = np.percentile(draws, [2.5, 97.5])
        bootstrap += low <= truth <= high
    assert held / cases > 0.92
    if rates[0] == 0.98:
        assert bootstrap / cases < 0.92
