"""The judge is trained once for its quality to be known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from erv.doctor import judge_check
from erv.doctor.judge_check import described_judge
from erv.errors import EvaluationError
from erv.evaluate import score_intervals
from erv.evaluate.judges import LexicalJudge


def texts(count: int) -> bytes:
    said = [
        f"Someone here is {label} number {n}.,{label}" for n in range(count) for label in ("anger", "fear")
    ]
    return "\n".join(["text,label", *said]).encode()


def test_a_judge_is_trained_again_only_if_something_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []
    train = LexicalJudge.from_csv

    def counted(text: str, *, seed: int = 0) -> LexicalJudge:
        trained.append(seed)
        return train(text, seed=seed)

    monkeypatch.setattr(LexicalJudge, "from_csv", counted)

    def described(count: int = 20, seed: int = 0) -> dict[str, Any]:
        return described_judge(texts(count), seed, tmp_path)

    first = described()
    assert first == train(texts(20).decode()).describe()
    assert (described(), trained) == (first, [0])
    described(seed=1)
    described(count=21)
    assert trained == [0, 1, 0]
    for path in tmp_path.iterdir():
        path.write_text('{"held_out": ')
    assert (described(), trained) == (first, [0, 1, 0, 0])
    for path in tmp_path.iterdir():
        path.write_text("{}")
    assert (described(), trained) == (first, [0, 1, 0, 0, 0])
    monkeypatch.setattr(judge_check, "sha256_of", lambda path: "other code")
    assert (described(), trained) == (first, [0, 1, 0, 0, 0, 0])


def test_an_answer_without_the_mean_over_emotions_is_not_used(tmp_path: Path) -> None:
    first = described_judge(texts(20), 0, tmp_path)
    (kept,) = tmp_path.iterdir()
    kept.write_text(json.dumps({k: v for k, v in first.items() if not k.startswith("held_out_recall")}))
    assert described_judge(texts(20), 0, tmp_path) == first


def test_the_code_that_measures_a_judge_is_in_the_key() -> None:
    measured_by = Path(score_intervals.__file__)
    library = Path(judge_check.__file__).parents[1]
    assert any(measured_by.is_relative_to(library / path) for path in judge_check._CODE)


def test_texts_that_no_judge_can_be_trained_on_are_refused_each_time(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(EvaluationError, match="too few"):
            described_judge(texts(1), 0, tmp_path)
    assert not list(tmp_path.iterdir())
