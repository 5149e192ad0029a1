"""What of an evaluation is read, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from erv.errors import EvaluationError
from erv.evaluate.evaluate import write_predictions
from erv.files import content_digest
from erv.manifest import write_manifest
from erv.traces.evaluated import read_evaluation
from tests.support.verdicts import make_row

PREDICTIONS = Path("eval/erv/predictions.parquet")
ROW = {
    "dataset": "mafw",
    "clip_id": "00000",
    "split": "test",
    "label": "anger",
    "completion": "<think>x</think>\n<answer>anger</answer>",
    "predicted": "anger",
    "judged": "anger",
    "verdicts": [{"judge": "lexical", "outcome": "named", "emotion": "anger"}],
    "sentences": 1,
    "sha256": "0" * 64,
}

Entries = dict[str, dict[str, Any]]


@pytest.fixture
def entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Entries:
    monkeypatch.chdir(tmp_path)
    PREDICTIONS.parent.mkdir(parents=True)
    write_predictions([ROW], PREDICTIONS)
    ask("What do you see?")
    return {"evaluate@erv": {"outs": [{"path": str(PREDICTIONS), "md5": content_digest(PREDICTIONS)}]}}


def ask(text: str) -> None:
    folder = Path("models/policy/erv")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "processor_config.json").write_text(json.dumps({"instruction": text}))


def test_what_was_asked(entries: Entries) -> None:
    found = read_evaluation("erv", entries)
    assert found.rows == [ROW]
    assert found.asked(ROW) == "What do you see?"


def test_what_was_asked_about_a_subtitle(entries: Entries) -> None:
    ask("It says: {subtitle}\nWhich of {labels}?")
    Path("data/manifest").mkdir(parents=True)
    clips = [make_row("mafw", 0, "test", subtitle="Go away!"), make_row("mafw", 1, "test")]
    write_manifest(clips, Path("data/manifest/mafw.parquet"))
    found = read_evaluation("erv", entries)
    assert found.asked(ROW).startswith("It says: Go away!\nWhich of anger, disgust, ")
    assert found.asked({**ROW, "clip_id": "00001"}).startswith("Which of anger, disgust, ")


def test_not_evaluated(entries: Entries) -> None:
    with pytest.raises(EvaluationError, match=r"'sft' was not evaluated here: eval/sft/.* is missing; run"):
        read_evaluation("sft", entries)
    with pytest.raises(EvaluationError, match=r"dvc.lock has no entry of evaluate@erv; run `dvc repro eval"):
        read_evaluation("erv", {})


def test_other_predictions_than_those_of_the_run(entries: Entries) -> None:
    write_predictions([{**ROW, "judged": None}], PREDICTIONS)
    with pytest.raises(EvaluationError, match=r"parquet: not the predictions that dvc.lock describes; run"):
        read_evaluation("erv", entries)


def test_without_the_policy(entries: Entries) -> None:
    Path("models/policy/erv").rename("elsewhere")
    with pytest.raises(EvaluationError, match=r"models/policy/erv: not found, and it says what was asked"):
        read_evaluation("erv", entries)
