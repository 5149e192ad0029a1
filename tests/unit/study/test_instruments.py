"""What judges and the verifier say of the explanations of a study, from the predictions behind it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from erv.errors import DataError, EvaluationError
from erv.evaluate.evaluate import write_predictions
from erv.files import sha256_of_file
from erv.labels import LabelSpace
from erv.study.analysis.instruments import read_evaluations, scores_of_judges, scores_of_verifier
from erv.study.plan import Key, read_key, read_study
from tests.support.large_study import write_large_study

WORDS = {"shouts": "anger", "cries": "sadness"}


class Verifier:
    """Reads an emotion in a word."""

    labels = LabelSpace.load("mafw").names

    def predict(self, sentences: Sequence[str]) -> np.ndarray:
        read = [{WORDS[word] for word in WORDS if word in text} for text in sentences]
        return np.array([[name in found for name in self.labels] for found in read], dtype=float)


def row(clip: str, policy: str) -> dict[str, Any]:
    """`sft` speaks of anger and answers it; `erv` cries, and of clip 1 gives no answer."""
    says, answer = (
        ("shouts", "anger") if policy == "sft" else ("cries", None if clip == "real1" else "sadness")
    )
    read = [WORDS[says], WORDS[says], "fear"]
    return {
        "dataset": "mafw",
        "clip_id": clip,
        "split": "test",
        "label": "anger",
        "completion": f"<think>He {says}. She {says} loudly.</think>\n<answer>{answer or ''}</answer>",
        "predicted": answer,
        "judged": read[0],
        "verdicts": [
            {"judge": judge, "outcome": "named", "emotion": emotion}
            for judge, emotion in zip(("one", "two", "three"), read, strict=True)
        ],
        "sentences": 2,
        "sha256": "0" * 64,
    }


@pytest.fixture
def key(tmp_path: Path) -> Key:
    digests = {}
    for policy in ("sft", "erv"):
        path = tmp_path / "eval" / policy / "predictions.parquet"
        write_predictions([row(f"real{clip}", policy) for clip in range(4)], path)
        digests[policy] = sha256_of_file(path)
    folder = write_large_study(
        tmp_path / "studies/two", clips=2, raters=2, overlap=1, checks=0, digests=digests
    )
    return read_key(read_study(folder))


def test_scores_of_judges_and_verifier(key: Key, tmp_path: Path) -> None:
    rows = read_evaluations(key, tmp_path / "eval")
    assert {clip for _, (_, clip) in rows} == {"real0", "real1"}  # those of the study alone
    judges = scores_of_judges(rows)
    assert list(judges) == ["one", "two", "three", "majority"]
    first, second = ("mafw", "real0"), ("mafw", "real1")
    for name in ("one", "two", "majority"):
        assert (judges[name].fits["sft", first], judges[name].fits["erv", first]) == (1.0, 0.0)
        assert (judges[name].agrees["sft", first], judges[name].agrees["erv", first]) == (1.0, 1.0)
        assert judges[name].agrees["erv", second] is None  # it gave no answer
    assert judges["three"].fits["sft", first] == 0.0 == judges["three"].agrees["erv", first]
    verifier = scores_of_verifier(rows, Verifier())
    assert (verifier.fits["sft", first], verifier.fits["erv", first]) == (1.0, 0.0)
    assert (verifier.agrees["erv", first], verifier.agrees["erv", second]) == (1.0, None)


def test_other_predictions_are_refused(key: Key, tmp_path: Path) -> None:
    path = tmp_path / "eval/erv/predictions.parquet"
    write_predictions([row(f"real{clip}", "sft") for clip in range(4)], path)
    with pytest.raises(DataError, match="not the predictions that the study was prepared from"):
        read_evaluations(key, tmp_path / "eval")
    path.unlink()
    with pytest.raises(EvaluationError, match="predictions not found"):
        read_evaluations(key, tmp_path / "eval")
