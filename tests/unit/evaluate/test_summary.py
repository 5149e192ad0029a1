"""DVC's metrics are the comparison's own values, and few."""

from erv.evaluate.compare import compare
from erv.evaluate.metrics import METRICS
from erv.evaluate.summary import few_figures

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
