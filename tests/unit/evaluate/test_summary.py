"""DVC's metrics are the comparison's own values, and few."""

import pytest

from erv.evaluate.compare import compare
from erv.evaluate.metrics import METRICS
from erv.evaluate.summary import MOST, few_figures

WORTH = {"embedding": None, "lexical": None}


def rows(judged):
    return [
        {
            "dataset": "mafw",
            "clip_id": f"{clip:03d}",
            "split": "test",
            "label": "anger",
            "completion": "<think>He shouts.</think><answer>anger</answer>",
            "predicted": "anger",
            "judged": judged,
            "sentences": 1,
            "verdicts": [
                {"judge": judge, "outcome": "named", "emotion": judged} for judge in ("embedding", "lexical")
            ],
        }
        for clip in range(30)
    ]


def test_they_are_the_values_of_the_comparison():
    policies = {"sft": rows("fear"), "erv": rows("anger")}
    comparison = compare(policies, samples=100, confidence=0.95, seed=0, worth=WORTH)
    found = few_figures(comparison)
    assert set(found) == {"sft", "erv", "judges"}
    assert set(found["erv"]) == {*METRICS, "format", "words"}
    assert (found["sft"]["inconsistency"], found["erv"]["inconsistency"], found["erv"]["words"]) == (
        1.0,
        0.0,
        2.0,
    )
    assert set(found["judges"]) == {"lexical", "majority"}, "the metrics are those of the headline judge"
    assert set(found["judges"]["majority"]["sft"]) == {"EPC", "inconsistency"}
    for policy in policies:
        for metric, value in found[policy].items():
            assert value == comparison["policies"][policy]["overall"][metric]["value"]
    comparison["judge"] = {"name": "lexical"}
    assert set(few_figures(comparison)["judges"]) == {"embedding", "majority"}
    del comparison["judges"]
    assert set(few_figures(comparison)) == {"sft", "erv"}


def count(found):
    return sum(count(value) if isinstance(value, dict) else 1 for value in found.values())


@pytest.mark.parametrize(
    ("policies", "judges", "numbers", "read"),
    [
        (3, 2, 36, {"lexical", "majority"}),
        (3, 4, 30, {"majority"}),
        (4, 2, 40, {"majority"}),
        (5, 2, 40, set()),
        (6, 2, 36, set()),
        (9, 1, 36, set()),
    ],
)
def test_there_are_never_too_many_to_read(policies, judges, numbers, read):
    """As `compare` writes them, which takes long for so many."""
    scopes = {"overall": {metric: {"value": 0.5} for metric in (*METRICS, "format", "words", "sentences")}}
    names = [f"policy_{number}" for number in range(policies)]
    reading = {"policies": dict.fromkeys(names, scopes)}
    panel = ["embedding", "lexical", "chat", "clip"][:judges] + ["majority"] * (judges > 1)
    comparison = {
        **reading, "judge": {"name": "embedding"}, "judges": dict.fromkeys(panel, reading)
    }  # fmt: skip
    found = few_figures(comparison, names[-1])
    assert count(found) == numbers <= MOST
    assert set(found.get("judges", {})) == read
    first, others = [name for name in found if name != "judges"]
    assert (first, others) == (names[-1], "others"), "the candidate comes first"
    assert list(found["others"]) == names[: len(found["others"])]
