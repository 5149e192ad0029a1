"""Several comparisons in one table."""

import numpy as np
import pytest

from erv.errors import EvaluationError
from erv.evaluate.compare import compare
from erv.evaluate.spread import difference_rows, policy_rows, spread, summarize


def interval(value, low=None, high=None):
    return {"value": value, "low": value if low is None else low, "high": value if high is None else high}


def comparison(later, earlier, half_width, judges=()):
    """Two policies whose metrics all have the same value."""
    metrics = ("WAR", "UAR", "EEA", "EPC", "FCR", "inconsistency", "words")

    def figures(shift=0.0):
        gap = later - earlier + shift
        return {
            "policies": {
                "r1_omni": {"overall": {m: interval(earlier) for m in metrics}},
                "erv": {"overall": {m: interval(later + shift) for m in metrics}},
            },
            "differences": {
                "erv-r1_omni": {
                    "overall": {m: interval(gap, gap - half_width, gap + half_width) for m in metrics}
                }
            },
        }

    return {
        "order": ["r1_omni", "erv"],
        "clips": {"overall": 100},
        **figures(),
        "judges": {judge: {"worth": None, **figures(0.5)} for judge in judges},
    }


def test_spread_is_that_of_numpy():
    values = [0.3, 0.5, 0.1, 0.45]
    found = spread([*values, None])
    assert found["mean"] == pytest.approx(np.mean(values))
    assert found["sd"] == pytest.approx(np.std(values, ddof=1), abs=1e-6)
    assert (found["min"], found["max"], found["runs"]) == (0.1, 0.5, 4)
    assert spread([0.2]) == {"mean": 0.2, "sd": None, "min": 0.2, "max": 0.2, "runs": 1}
    assert spread([None])["mean"] is None


def test_it_counts_in_how_many_runs_a_difference_is_clear():
    runs = {
        "a": comparison(0.6, 0.5, 0.05),
        "b": comparison(0.55, 0.5, 0.1),
        "c": comparison(0.4, 0.5, 0.05),
    }
    found = summarize(runs)
    assert found["policies"]["erv"]["WAR"]["mean"] == pytest.approx(1.55 / 3, abs=1e-6)
    gap = found["differences"]["erv-r1_omni"]
    assert (gap["EEA"]["better"], gap["EEA"]["worse"], gap["EEA"]["runs"]) == (1, 1, 3)
    # Less inconsistency is better, and more words are neither.
    assert (gap["inconsistency"]["better"], gap["inconsistency"]["worse"]) == (1, 1)
    assert "better" not in gap["words"]
    assert policy_rows(found)[1]["WAR"] == "51.7 ± 10.4 (40.0 to 60.0)"
    row = difference_rows(found, "erv", "r1_omni")
    assert row["EEA"] == "+1.7 ± 10.4 (-10.0 to +10.0), better in 1 of 3, worse in 1"


def test_judges_of_all_runs_are_summarized():
    runs = {"a": comparison(0.6, 0.5, 0.05, ("x", "y")), "b": comparison(0.6, 0.5, 0.05, ("x",))}
    found = summarize(runs)
    assert list(found["judges"]) == ["x"]
    assert found["judges"]["x"]["differences"]["erv-r1_omni"]["EPC"]["mean"] == pytest.approx(0.6)
    assert difference_rows(found, "erv", "r1_omni", "x")["read by"] == "x"


def test_runs_that_do_not_go_together_are_named():
    with pytest.raises(EvaluationError, match="no comparison"):
        summarize({})
    other = {**comparison(0.6, 0.5, 0.1), "order": ["sft", "erv"]}
    with pytest.raises(EvaluationError, match="'a' and 'b' compare different policies"):
        summarize({"a": comparison(0.6, 0.5, 0.1), "b": other})
    with pytest.raises(EvaluationError, match="run 'a' has no clips of 'dfew'"):
        summarize({"a": comparison(0.6, 0.5, 0.1)}, "dfew")


def rows(right, explains=True):
    """Thirty angry clips, of which the first ones are answered right; explanations say what is true."""
    heard = "anger" if explains else None
    return [
        {
            "dataset": "mafw",
            "clip_id": f"{clip:03d}",
            "split": "test",
            "label": "anger",
            "completion": f"<think>{heard or ''}</think><answer>{clip < right}</answer>",
            "predicted": "anger" if clip < right else "fear",
            "judged": heard,
            "sentences": 1,
            "verdicts": [
                {"judge": judge, "outcome": "named" if heard else "silent", "emotion": heard}
                for judge in ("embedding", "lexical")
            ],
        }
        for clip in range(30)
    ]


@pytest.mark.parametrize("order", [("direct", "sft", "erv"), ("sft", "erv", "direct")])
def test_a_policy_that_does_not_explain_has_dashes(order):
    predictions = {"direct": rows(6, explains=False), "sft": rows(12), "erv": rows(24)}
    found = compare(
        {policy: predictions[policy] for policy in order},
        samples=50,
        confidence=0.95,
        seed=1,
        worth={"embedding": None, "lexical": None},
        unexplained=["direct"],
    )
    summary = summarize({"a": found, "b": found})
    shown = {row["policy"]: row for row in policy_rows(summary)}
    assert shown["direct"]["WAR"] == "20.0 ± 0.0 (20.0 to 20.0)"
    assert {shown["direct"][metric] for metric in ("EEA", "EPC", "FCR", "inconsistency")} == {"-"}
    assert shown["erv"]["EPC"] == "80.0 ± 0.0 (80.0 to 80.0)"
    against_direct = difference_rows(summary, "erv", "direct")
    assert against_direct["WAR"] == "+60.0 ± 0.0 (+60.0 to +60.0), better in 2 of 2"
    assert {against_direct[metric] for metric in ("EEA", "EPC", "FCR", "inconsistency")} == {"-"}
    assert difference_rows(summary, "erv", "sft")["EPC"].startswith("+40.0")
    assert difference_rows(summary, "erv", "sft", "lexical")["EPC"].startswith("+40.0")
    assert difference_rows(summary, "erv", "direct", "lexical")["EPC"] == "-"


def test_a_difference_is_read_from_either_side():
    found = summarize({"a": comparison(0.6, 0.5, 0.05), "b": comparison(0.55, 0.5, 0.1)})
    assert difference_rows(found, "erv", "r1_omni")["WAR"] == "+7.5 ± 3.5 (+5.0 to +10.0), better in 1 of 2"
    turned = difference_rows(found, "r1_omni", "erv")
    assert turned["WAR"] == "-7.5 ± 3.5 (-10.0 to -5.0), better in 0 of 2, worse in 1"
    assert turned["inconsistency"] == "-7.5 ± 3.5 (-10.0 to -5.0), better in 1 of 2"
    same = summarize({"a": comparison(0.5, 0.5, 0.05)})
    assert difference_rows(same, "r1_omni", "erv")["WAR"] == "+0.0 (+0.0 to +0.0), better in 0 of 1"
