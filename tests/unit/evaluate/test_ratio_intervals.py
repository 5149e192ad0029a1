"""Inconsistency is counted among right answers, so its intervals are those of a ratio."""

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from erv.evaluate.compare import compare
from erv.evaluate.intervals import ENOUGH, ratio_difference_interval, ratio_interval
from erv.evaluate.outcomes import Term
from erv.evaluate.ratio_intervals import ratio_score
from erv.evaluate.score_intervals import paired_score

NO_DRAWS = np.full(5, np.nan)


def term(inconsistent, consistent, wrong):
    """Clips in this order."""
    over = np.repeat([1, 0, 0], [inconsistent, consistent, wrong]).astype(np.float32)
    return Term(over, np.repeat([1, 1, 0], [inconsistent, consistent, wrong]).astype(np.float32))


@pytest.mark.parametrize("inconsistent", [0, 1, 7])
def test_of_one_policy_it_is_wilsons_among_the_right_answers(inconsistent):
    found = ratio_interval(
        term(inconsistent, 18 - inconsistent, 30), inconsistent / 18, np.full(5, 0.4), 0.95
    )
    expected = binomtest(inconsistent, 18).proportion_ci(0.95, method="wilson")
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_without_a_right_answer_there_is_none():
    nothing = {"value": None, "low": None, "high": None}
    assert ratio_interval(term(0, 0, 9), float("nan"), NO_DRAWS, 0.95) == nothing
    found = ratio_difference_interval(term(0, 0, 9), term(3, 3, 3), float("nan"), NO_DRAWS, 0.95)
    assert found == nothing


def test_policies_that_no_clip_tells_apart_differ_by_about_what_tango_allows():
    for k in (0, 1, 20, 60):
        low, high = ratio_score(term(k, 120 - k, 30), term(k, 120 - k, 30), 0.95)
        tango = paired_score([0], [0], [120], 0.95)
        assert low == pytest.approx(-high)
        assert 0.7 < high / tango[1] < 1.3


def test_on_the_same_right_answers_it_is_close_to_tangos():
    """Where both count among the same clips there is a standard interval to compare with."""
    rng = np.random.default_rng(0)
    for p, q in ((0.5, 0.2), (0.3, 0.3), (0.1, 0.02)):
        first, second = (rng.random(150) < share for share in (p, q))
        terms = [Term(part.astype(np.float32), np.ones(150, dtype=np.float32)) for part in (first, second)]
        gained, lost = (first & ~second).sum(), (second & ~first).sum()
        tango = paired_score([gained], [lost], [150], 0.95)
        assert ratio_score(*terms, 0.95) == pytest.approx(tango, abs=0.02)


def test_it_turns_round():
    first, second = term(10, 80, 30), term(30, 50, 40)
    low, high = ratio_score(first, second, 0.95)
    assert ratio_score(second, first, 0.95) == pytest.approx((-high, -low))


def test_with_enough_clips_of_all_kinds_it_is_the_bootstrap():
    rng, draws = np.random.default_rng(1), np.linspace(-0.2, 0.2, 101)
    first, second = term(ENOUGH, 60, 40), term(ENOUGH + 10, 60, 30)
    order = rng.permutation(120)
    second = Term(second.over[order], second.of[order])
    found = ratio_difference_interval(first, second, 0.0, draws, 0.9)
    assert (found["low"], found["high"]) == (-0.18, 0.18)
    few = term(2, 78, 40)
    assert ratio_difference_interval(few, second, 0.0, draws, 0.9)["low"] != -0.18


def row(clip, answer, judged):
    return {
        "dataset": "mafw",
        "clip_id": f"{clip:03d}",
        "split": "test",
        "label": "anger",
        "completion": f"{answer} {judged}",
        "predicted": answer,
        "judged": judged,
        "sentences": 1,
    }


def test_the_comparison_has_it_with_its_difference():
    before = [row(i, "anger" if i < 40 else "fear", "anger" if i % 2 else "fear") for i in range(60)]
    after = [row(i, "anger" if i < 50 else "fear", "anger" if i % 5 else "fear") for i in range(60)]
    found = compare({"before": before, "after": after}, samples=400, confidence=0.95, seed=0)
    first, second = (found["policies"][name]["overall"]["inconsistency"] for name in ("before", "after"))
    assert (first["value"], second["value"]) == (0.5, 0.2)
    gap = found["differences"]["after-before"]["overall"]["inconsistency"]
    assert gap["value"] == pytest.approx(-0.3)
    assert gap["low"] < -0.3 < gap["high"] < 0
    everything = found["policies"]["before"]["overall"]["inconsistency_all"]
    assert everything["value"] == pytest.approx(30 / 60)


@pytest.mark.parametrize(
    ("right", "later", "earlier", "alike"),
    [(0.6, 0.47, 0.17, 0.3), (0.6, 0.02, 0.05, 0.5)],
)
def test_95_of_100_intervals_hold_the_truth(right, later, earlier, alike):
    """Simulated clips: some are hard for both policies, in answer and in explanation."""
    rng, clips, cases, held = np.random.default_rng(0), 216, 120, 0
    truth = later - earlier
    for _ in range(cases):
        shared, own = rng.standard_normal((2, 1, clips)), rng.standard_normal((2, 2, clips))
        hard = np.sqrt(alike) * shared + np.sqrt(1 - alike) * own
        among = (norm.cdf(hard[0]) < right).astype(np.float32)
        over = (norm.cdf(hard[1]) < np.array([[later], [earlier]])) * among
        times = rng.multinomial(clips, np.full(clips, 1 / clips), size=150)
        draws = (times @ over.T) / (times @ among.T)
        terms = [Term(over[i].astype(np.float32), among[i]) for i in range(2)]
        value = terms[0].value - terms[1].value
        found = ratio_difference_interval(*terms, value, draws[:, 0] - draws[:, 1], 0.95)
        held += found["low"] <= truth <= found["high"]
    assert held / cases > 0.92
