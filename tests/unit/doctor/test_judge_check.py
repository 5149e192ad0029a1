"""A judge is made once for its worth to be known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from erv.doctor import judge_check
from erv.doctor.judge_check import described_judge
from erv.errors import DataError, EvaluationError
from erv.evaluate import score_intervals
from erv.evaluate.judges import worth
from erv.evaluate.judges.lexical import LexicalJudge
from erv.pinning import pin
from erv.settings import load_settings
from erv.settings.judges import LexicalJudge as Settings
from erv.sources import Lock

LABELLED = "text,label\nSomeone here is anger.,anger\nSomeone here is fear.,fear\n"


@pytest.fixture
def sources(tmp_path: Path) -> Callable[[int], tuple[Lock, Lock]]:
    """The sources `judge`, with texts, and `base`, each as pinned."""
    (tmp_path / "base").mkdir()
    (tmp_path / "data/judge_texts").mkdir(parents=True)
    (tmp_path / "data/judge_texts/policies.csv").write_text(LABELLED)

    def pinned(count: int) -> tuple[Lock, Lock]:
        said = [
            f"Someone here is {name} number {n}.,{name}" for n in range(count) for name in ("anger", "fear")
        ]
        (tmp_path / "judge").mkdir(exist_ok=True)
        (tmp_path / "judge/texts.csv").write_text("\n".join(["text,label", *said]))
        (tmp_path / "base/x").write_text("x")
        return pin("judge", str(tmp_path / "judge"), None), pin("base", str(tmp_path / "base"), None)

    return pinned


def test_a_judge_is_made_again_only_if_something_changed(
    tmp_path: Path, sources: Callable[[int], tuple[Lock, Lock]], monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    trained: list[int] = []
    train = LexicalJudge.from_csv

    def counted(text: str) -> LexicalJudge:
        trained.append(1)
        return train(text)

    monkeypatch.setattr(LexicalJudge, "from_csv", counted)
    settings = load_settings(root / "params.yaml")
    kept = tmp_path / ".erv/judges"

    def described(count: int = 20) -> dict[str, Any]:
        return described_judge(
            Settings(kind="lexical"), settings, tmp_path, sources(count), None, said.append
        )

    said: list[str] = []
    first = described()
    assert first["worth"]["accuracy"] == 1.0
    assert [line.partition(",")[0] for line in said] == [
        "judge lexical: fetching what it is made of and judging the texts of data/judge_texts/policies.csv"
    ]
    assert (described(), len(trained)) == (first, 1)
    assert len(said) == 1, "what is kept takes no time"
    described(21)
    assert len(trained) == 2
    for content in ('{"worth": ', "{}", '{"worth": {"texts": 2}}', '{"worth": null}'):
        for path in kept.glob("*.json"):
            path.write_text(content)
        before = len(trained)
        assert (described(), len(trained)) == (first, before + 1)
    (tmp_path / "data/judge_texts/policies.csv").write_text(f"{LABELLED}Nothing.,none\n")
    assert described()["worth"]["none"]["texts"] == 1
    before = len(trained)
    monkeypatch.setattr(judge_check, "sha256_of", lambda path: "other code")
    described()
    assert len(trained) == before + 1
    assert not list(kept.glob("incoming/models/.*")), "what it was built from is gone"


def test_the_code_that_measures_a_judge_is_in_the_key() -> None:
    library = Path(judge_check.__file__).parents[1]
    for module in (score_intervals, worth):
        assert any(Path(module.__file__).is_relative_to(library / path) for path in judge_check._CODE)


def test_texts_that_no_judge_can_be_trained_on_are_refused_each_time(
    tmp_path: Path, sources: Callable[[int], tuple[Lock, Lock]], root: Path
) -> None:
    settings = load_settings(root / "params.yaml")
    for _ in range(2):
        with pytest.raises(EvaluationError, match="too few"):
            described_judge(Settings(kind="lexical"), settings, tmp_path, sources(0), None)
    locks = sources(20)
    (tmp_path / "judge/texts.csv").write_text("changed")
    with pytest.raises(DataError, match="content has changed since it was pinned"):
        described_judge(Settings(kind="lexical"), settings, tmp_path, locks, None)
    assert not list((tmp_path / ".erv/judges").glob("*.json"))
