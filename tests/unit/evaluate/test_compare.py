import numpy as np
import pytest

from erv.errors import EvaluationError
from erv.evaluate.compare import _bootstrap, compare, difference, format_table, metrics_table
from erv.evaluate.evaluate import measure, scope_rows
from erv.evaluate.metrics import METRICS
from erv.labels import LabelSpace


def predictions(seed, right, clips=60):
    rng, truth = np.random.default_rng(seed), np.random.default_rng(7)
    rows = []
    for dataset in ("mafw", "dfew"):
        names = LabelSpace.load(dataset).names
        for clip in range(clips):
            label = names[truth.integers(len(names))]
            answer = label if rng.random() < right else names[rng.integers(len(names))]
            judged = answer if rng.random() < right else None if rng.random() < 0.2 else names[0]
            rows.append(
                {
                    "dataset": dataset,
                    "clip_id": f"{clip:03d}",
                    "split": "test",
                    "label": label,
                    "completion": "x",
                    "predicted": None if rng.random() < 0.05 else answer,
                    "judged": judged,
                    "sentences": 3,
                }
            )
    return rows


@pytest.fixture(scope="module")
def policies():
    return {"sft": predictions(0, 0.5), "erv": predictions(1, 0.9)}


@pytest.fixture(scope="module")
def comparison(policies):
    return compare(policies, samples=400, confidence=0.95, seed=0)


def test_values_are_those_of_the_metrics(policies, comparison):
    for policy, rows in policies.items():
        for scope, values in measure(rows).items():
            for metric in METRICS:
                found = comparison["policies"][policy][scope][metric]
                assert found["value"] == pytest.approx(values[metric], abs=2e-6)
                assert found["low"] <= found["value"] <= found["high"]
    assert comparison["clips"] == {"overall": 120, "mafw": 60, "dfew": 60}


def test_draws_equal_a_slow_bootstrap(policies):
    rows = {name: scope_rows(items)["overall"] for name, items in policies.items()}
    _, draws = _bootstrap(rows, "overall", 5, seed=3)
    import zlib

    stream = np.random.default_rng([3, zlib.crc32(b"overall")])
    picks = stream.integers(0, 120, size=(5, 120))
    for p, items in enumerate(rows.values()):
        ordered = sorted(items, key=lambda row: (row["dataset"], row["clip_id"]))
        for draw in range(5):
            chosen = [{**ordered[i], "dataset": "mafw"} for i in picks[draw]]
            expected = measure(chosen)["overall"]
            assert draws[draw, p] == pytest.approx([expected[m] for m in METRICS], abs=2e-6)


def test_the_same_seed_gives_the_same_comparison(policies, comparison):
    assert compare(policies, samples=400, confidence=0.95, seed=0) == comparison
    assert compare(policies, samples=400, confidence=0.95, seed=1) != comparison
    shuffled = {name: rows[::-1] for name, rows in policies.items()}
    again = compare(shuffled, samples=400, confidence=0.95, seed=0)
    assert again["policies"] == comparison["policies"]


def test_a_policy_does_not_differ_from_itself(policies):
    same = compare({"a": policies["sft"], "b": policies["sft"]}, samples=100, confidence=0.9, seed=0)
    assert same["differences"]["b-a"]["overall"]["EPC"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_differences_are_paired_and_turn_round(comparison):
    forward = difference(comparison, "erv", "sft", "overall", "WAR")
    values = comparison["policies"]
    gap = values["erv"]["overall"]["WAR"]["value"] - values["sft"]["overall"]["WAR"]["value"]
    assert forward["value"] == pytest.approx(gap, abs=2e-6)
    assert forward["low"] > 0
    back = difference(comparison, "sft", "erv", "overall", "WAR")
    assert (back["low"], back["high"]) == (-forward["high"], -forward["low"])
    with pytest.raises(EvaluationError, match="'erv' and 'other' were not compared"):
        difference(comparison, "erv", "other", "overall", "WAR")


def test_a_wider_confidence_is_a_wider_interval(policies, comparison):
    narrow = compare(policies, samples=400, confidence=0.6, seed=0)["policies"]["erv"]["overall"]["WAR"]
    wide = comparison["policies"]["erv"]["overall"]["WAR"]
    assert wide["low"] < narrow["low"]
    assert narrow["high"] < wide["high"]


def test_policies_must_have_seen_the_same_clips(policies):
    with pytest.raises(EvaluationError, match="not evaluated on the same clips"):
        compare({"a": policies["sft"], "b": policies["erv"][1:]}, samples=100, confidence=0.95, seed=0)
    with pytest.raises(EvaluationError, match="no policy"):
        compare({}, samples=100, confidence=0.95, seed=0)


def test_table_for_the_terminal(comparison):
    rows = metrics_table(comparison)
    assert [row["policy"] for row in rows] == ["sft", "erv"]
    lines = format_table(rows).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].startswith("| policy | clips | WAR")
