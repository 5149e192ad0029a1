"""Verdicts side by side: columns, majority, agreement, disagreements."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import cohen_kappa_score

from erv.errors import EvaluationError
from erv.evaluate.evaluate import (
    SCHEMA,
    judge_completions,
    read_by_panel,
    read_predictions,
    scope_rows,
    write_predictions,
)
from erv.evaluate.judges.agreement import agreement
from erv.evaluate.judges.panel import (
    disagreements,
    judges_of,
    majority,
    outcomes,
    read_by,
    require_replies,
)
from erv.evaluate.judges.protocol import OUTCOMES, Verdict
from erv.labels import LabelSpace
from erv.manifest import ClipRow
from tests.support.judging import Spoken, read

MAFW = LabelSpace.load("mafw")


def clip(name, dataset="dfew", label="happy"):
    return ClipRow(
        name, dataset, 1, "test", label, "1", None, None, "video", "s3://x", 1, "0" * 64, "", "", None
    )


def test_predictions_hold_a_verdict_per_judge_and_the_first_one_is_the_headline(tmp_path):
    said = {"1": "<think>She is happy.</think>\n<answer>happiness</answer>", "2": "<think>Scorn.</think>"}
    rows = judge_completions([clip("2"), clip("1")], said, [Spoken("one"), Spoken("two")])
    first, second = rows
    assert (first["clip_id"], first["predicted"], first["judged"]) == ("1", "happy", "happy")
    assert first["verdicts"] == [
        {"judge": name, "outcome": "named", "emotion": "happy"} for name in ("one", "two")
    ]
    assert second["judged"] is None
    assert second["verdicts"][0] == {"judge": "one", "outcome": "outside", "emotion": None}
    write_predictions(rows, tmp_path / "predictions.parquet")
    assert read_predictions(tmp_path / "predictions.parquet") == rows
    assert pq.read_schema(tmp_path / "predictions.parquet").equals(SCHEMA)
    assert {row["sha256"] for row in rows} == {"0" * 64}
    older = pq.read_table(tmp_path / "predictions.parquet").drop_columns(["sha256"])
    pq.write_table(older, tmp_path / "older.parquet")
    assert read_predictions(tmp_path / "older.parquet") == [{**row, "sha256": None} for row in rows]
    with pytest.raises(EvaluationError, match="'1' of dfew has no completion"):
        judge_completions([clip("1")], {}, [Spoken()])
    with pytest.raises(EvaluationError, match="two judges are called 'spoken'"):
        judge_completions([clip("1")], said, [Spoken(), Spoken()])


def test_a_verdict_names_an_emotion_or_says_why_not():
    assert OUTCOMES == ("named", "silent", "outside", "unreadable", "failed")
    for wrong in (("named", None), ("silent", "anger")):
        with pytest.raises(ValueError, match="a verdict"):
            Verdict(*wrong)


def test_rows_are_read_by_one_judge_or_by_more_than_half():
    rows = [
        read("anger", "fear", "fear", clip="1"),
        read("(silent)", "fear", "(failed)", clip="2"),
        read("anger", "anger", "(outside)", clip="3"),
    ]
    assert judges_of(rows) == ["a", "b", "c"]
    assert [row["judged"] for row in read_by(rows, "a")] == ["anger", None, "anger"]
    assert [row["judged"] for row in read_by(rows, "c")] == ["fear", None, None]
    assert [row["judged"] for row in read_by(rows, "majority")] == ["fear", None, "anger"]
    assert rows[0]["judged"] == "anger", "the rows themselves stay"
    assert majority(read("anger", "fear")["verdicts"]) is None, "half is no majority"
    assert outcomes(rows)["a"] == {"named": 2, "silent": 1}
    assert read_by([], "a") == []
    with pytest.raises(EvaluationError, match=r"no judge 'd' .*; expected one of a, b, c or majority"):
        read_by(rows, "d")
    with pytest.raises(EvaluationError, match=r"by different judges \(a; a, b, c\)"):
        judges_of([*rows, read("anger", clip="4")])
    with pytest.raises(EvaluationError, match="no judge"):
        judges_of([read()])


def test_a_judge_that_fails_often_stops_the_evaluation():
    """Each of these explanations would count as consistent."""
    rows = [read("anger", "(failed)" if n < 3 else "fear", clip=str(n)) for n in range(20)]
    require_replies(rows, 0.15)
    with pytest.raises(EvaluationError, match=r"judge b gave no usable reply about 3 of 20 .*=0.1 allows"):
        require_replies(rows, 0.1)
    require_replies([], 0.0)


def test_alpha_and_kappa_agree_with_their_definitions():
    """Krippendorff's alpha by hand, from the coincidences of the values that pairs of judges gave."""
    rng = np.random.default_rng(0)
    said = rng.choice(["anger", "fear", "sadness", "(silent)"], size=(60, 3), p=[0.4, 0.3, 0.2, 0.1])
    said[:40, 1] = said[:40, 0]
    rows = [read(*map(str, line), clip=str(i)) for i, line in enumerate(said)]
    found = agreement(rows, MAFW)
    units = [[v for v in line if not v.startswith("(")] for line in said]
    units = [unit for unit in units if len(unit) > 1]
    values = [v for unit in units for v in unit]
    observed = sum(
        sum(a != b for i, a in enumerate(unit) for j, b in enumerate(unit) if i != j) / (len(unit) - 1)
        for unit in units
    ) / len(values)
    n = len(values)
    expected = sum(a != b for i, a in enumerate(values) for j, b in enumerate(values) if i != j) / (
        n * (n - 1)
    )
    assert found["alpha"] == pytest.approx(1 - observed / expected, abs=1e-6)
    pair = next(item for item in found["pairs"] if item["judges"] == ["a", "b"])
    both = [(a, b) for a, b, _ in said if not a.startswith("(") and not b.startswith("(")]
    assert pair["both"] == len(both)
    assert pair["same"] == pytest.approx(np.mean([a == b for a, b in both]), abs=1e-6)
    assert pair["kappa"] == pytest.approx(cohen_kappa_score(*zip(*both, strict=True)), abs=1e-6)
    assert len(found["pairs"]) == 3


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [read("anger")],
        [read("anger", "(silent)")],
        [read("(silent)", "(failed)")],
        [read("anger", "anger", clip=str(i)) for i in range(5)],
    ],
)
@pytest.mark.filterwarnings("error")
def test_where_chance_explains_all_there_is_no_agreement_to_report(rows):
    found = agreement(rows, MAFW)
    assert found["alpha"] is None
    assert all(pair["kappa"] is None for pair in found["pairs"])


def test_disagreements_come_with_those_that_split_the_panel_most_first():
    rows = [
        read("anger", "anger", "anger", clip="1"),
        read("anger", "fear", "fear", clip="2"),
        read("anger", "fear", "(silent)", clip="3"),
        read("(silent)", "(silent)", "(silent)", clip="4"),
    ]
    found = disagreements(rows)
    assert [(item["clip_id"], item["readings"]) for item in found] == [("3", 3), ("2", 2)]
    assert found[0]["said"] == {"a": "anger", "b": "fear", "c": "(silent)"}


def test_metrics_say_what_each_judge_and_the_majority_read():
    rows = [
        read("anger", "anger", clip="1"),
        read("fear", "anger", clip="2"),
        read("(unreadable)", "angry", clip="3", dataset="dfew", label="angry", predicted="angry"),
        read("(silent)", "(silent)", clip="4"),
    ]
    described = [{"name": "a", "worth": {"accuracy": 0.9}}, {"name": "b", "worth": {"accuracy": 0.8}}]
    panel = read_by_panel(rows, described)
    assert panel["judge"] == described[0]
    assert panel["judges"]["a"]["metrics"]["overall"] == {
        "EEA": 0.25,
        "EPC": 0.25,
        "FCR": 0.25,
        "inconsistency": 0.25,
    }
    assert panel["judges"]["b"]["metrics"]["overall"]["EEA"] == 0.75
    assert panel["judges"]["b"]["metrics"]["dfew"]["EEA"] == 1.0
    assert panel["judges"]["a"]["worth"] == {"accuracy": 0.9}
    assert panel["judges"]["a"]["outcomes"]["overall"] == {"named": 2, "silent": 1, "unreadable": 1}
    assert panel["majority"]["overall"]["EEA"] == 0.25
    assert panel["unreadable"] == {"overall": 1, "mafw": 0, "dfew": 1}
    assert panel["agreement"]["pairs"][0]["both"] == 2
    assert scope_rows(rows)["overall"][2]["verdicts"][1]["emotion"] == "anger"
