import numpy as np
import pytest

from erv.errors import EvaluationError
from erv.evaluate.compare import compare, difference, format_table, metrics_table, table_notes
from erv.evaluate.draws import bootstrap
from erv.evaluate.evaluate import measure, scope_rows
from erv.evaluate.metrics import METRICS
from erv.evaluate.outcomes import answer_terms, explanation_terms, in_order
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
    rows = {name: in_order(scope_rows(items)["overall"]) for name, items in policies.items()}
    emotions = np.unique([row["label"] for row in rows["sft"]], return_inverse=True)[1]
    terms = [
        {("", m): t for m, t in {**answer_terms(r), **explanation_terms(r)}.items()} for r in rows.values()
    ]
    names = [metric for _, metric in terms[0]] + ["UAR"]
    _, draws = bootstrap(terms, emotions, "overall", 5, seed=3)
    import zlib

    stream = np.random.default_rng([3, zlib.crc32(b"overall")])
    picks = stream.integers(0, 120, size=(5, 120))
    for p, items in enumerate(rows.values()):
        ordered = sorted(items, key=lambda row: (row["dataset"], row["clip_id"]))
        for draw in range(5):
            chosen = [{**ordered[i], "dataset": "mafw"} for i in picks[draw]]
            expected = measure(chosen)["overall"]
            assert draws[draw, p] == pytest.approx([expected[m] for m in names], abs=2e-6)


def test_the_same_seed_gives_the_same_comparison(policies, comparison):
    assert compare(policies, samples=400, confidence=0.95, seed=0) == comparison
    assert compare(policies, samples=400, confidence=0.95, seed=1) != comparison
    shuffled = {name: rows[::-1] for name, rows in policies.items()}
    again = compare(shuffled, samples=400, confidence=0.95, seed=0)
    assert again["policies"] == comparison["policies"]


def test_a_policy_does_not_differ_from_itself_but_the_clips_only_say_so_much(policies):
    same = compare({"a": policies["sft"], "b": policies["sft"]}, samples=100, confidence=0.95, seed=0)
    reach = 1.959964**2 / (120 + 1.959964**2)  # Tango's interval where no clip tells the two apart
    found = same["differences"]["b-a"]["overall"]["EPC"]
    assert found == {"value": 0.0, "low": pytest.approx(-reach, abs=1e-6), "high": -found["low"]}
    assert same["differences"]["b-a"]["overall"]["UAR"]["high"] > found["high"]  # rare emotions say less
    assert same["same_answers"] == ["b-a"]


def answered(label, answer, judged, clip):
    return {
        "dataset": "mafw",
        "clip_id": f"{clip:03d}",
        "split": "test",
        "label": label,
        "completion": f"<answer>{answer}</answer>",
        "predicted": answer,
        "judged": judged,
        "sentences": 1,
    }


def test_an_interval_at_an_end_has_a_width():
    labels = ["anger", "fear", "sadness"] * 6
    wrong = [answered(label, "surprise", label, clip) for clip, label in enumerate(labels)]
    right = [answered(label, label, None, clip) for clip, label in enumerate(labels)]
    found = compare({"wrong": wrong, "right": right}, samples=100, confidence=0.95, seed=0)
    values = found["policies"]
    # Wilson's interval, as published tables have it: 0 of 18 is 0 to 17.6%, 18 of 18 is 82.4 to 100%.
    none, every = (values[policy]["mafw"]["WAR"] for policy in ("wrong", "right"))
    assert none == {"value": 0.0, "low": 0.0, "high": pytest.approx(0.1759, abs=1e-4)}
    assert every == {"value": 1.0, "low": pytest.approx(0.8241, abs=1e-4), "high": 1.0}
    assert values["wrong"]["mafw"]["UAR"] == none  # equally frequent emotions
    assert values["right"]["mafw"]["EEA"] == none
    gap = found["differences"]["right-wrong"]["mafw"]
    # Tango's: some of the 18 pairs may as well have been lost, so it is wider than a share of 18 of 18.
    assert gap["WAR"] == {"value": 1.0, "low": pytest.approx(0.6482, abs=1e-4), "high": 1.0}
    assert gap["EEA"] == {"value": -1.0, "low": -1.0, "high": pytest.approx(-0.6482, abs=1e-4)}
    assert found["same_answers"] == []


def test_the_table_says_what_uar_and_eea_leave_out_and_what_the_released_code_gives():
    rows = [answered(label, label, label, clip) for clip, label in enumerate(["anger", "fear"] * 4)]
    rows[0] |= {"predicted": None, "completion": "<answer>bored</answer>"}
    found = compare({"sft": rows}, samples=100, confidence=0.95, seed=0)
    assert found["policies"]["sft"]["overall"]["EEA"]["value"] == 1.0
    assert found["policies"]["sft"]["overall"]["UAR"]["value"] == 0.875
    # The released MAFW code leaves the unreadable answer out of its class: 2 of 11 emotions have recall 1.
    assert found["released"]["sft"]["overall"] == {"UAR": round(2 / 11, 6), "EEA": 0.875}
    notes = " ".join(table_notes(found))
    assert "no clip has disgust, happiness, neutral, sadness, surprise" in notes
    assert "out of their emotion's total: sft 18.2." in notes
    assert "counts 0 where the answer can't be read: sft 87.5." in notes


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


def test_predictions_without_the_content_of_clips_are_named(policies):
    """They were said to be of other clips, though nobody can know."""
    with_content = [{**row, "sha256": row["clip_id"]} for row in policies["erv"]]
    asked = {"a": policies["sft"], "b": with_content, "c": policies["erv"]}
    with pytest.raises(EvaluationError) as refused:
        compare(asked, samples=100, confidence=0.95, seed=0)
    assert str(refused.value) == (
        "predictions of a, c lack the content of their clips, as an older erv wrote them, and those of the"
        " others have it; run `erv run --force evaluate`"
    )


def test_table_for_the_terminal(comparison):
    rows = metrics_table(comparison)
    assert [row["policy"] for row in rows] == ["sft", "erv"]
    lines = format_table(rows).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].startswith("| policy | clips | WAR")


def test_a_space_is_loaded_once_per_data_set(policies, monkeypatch):
    asked = []
    load = LabelSpace.load
    monkeypatch.setattr(LabelSpace, "load", staticmethod(lambda space: asked.append(space) or load(space)))
    scope_rows(policies["sft"])
    assert sorted(asked) == ["dfew", "mafw", "mafw"]
