"""What a served policy is asked: what it was asked when it was evaluated, or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from erv.answering.question import LONGEST_SUBTITLE, Question
from erv.answering.spaces import spaces_of
from erv.errors import DataError, RegistryError
from erv.labels import LabelSpace
from erv.prompts import Prompt, read_prompt

SHIPPED = read_prompt("data/prompts/labels.txt")
ONE = {"dfew": "dfew"}
TWO = {"dfew": "dfew", "mafw": "mafw"}


@pytest.mark.parametrize(
    ("spaces", "dataset", "subtitle", "names"),
    [
        (ONE, None, None, "dfew"),
        (ONE, "dfew", "You came!", "dfew"),
        (TWO, "mafw", "", "mafw"),
        (TWO, "dfew", "You came!", "dfew"),
    ],
)
def test_it_is_asked_as_evaluation_asks(
    spaces: dict[str, str], dataset: str | None, subtitle: str | None, names: str
) -> None:
    """Both lines were left out, while gates and card were about the whole question."""
    asked = Question(SHIPPED, spaces).about(dataset, subtitle)
    assert asked == SHIPPED.ask(LabelSpace.load(names).names, subtitle)  # as in stages/evaluate.py
    assert "{" not in str(asked)
    assert ("The person says: You came!" in str(asked)) == bool(subtitle)


@pytest.mark.parametrize(
    ("spaces", "dataset", "subtitle", "said"),
    [
        (TWO, None, None, "tested with dfew, mafw; name one of them in the field dataset"),
        (TWO, "ravdess", None, "tested with dfew, mafw, not with 'ravdess'; name one of those in the field"),
        (ONE, "mafw", None, "tested with dfew, not with 'mafw'"),
        (ONE, 7, None, "tested with dfew, not with '7'"),
        (ONE, np.array(["dfew", "mafw"]), None, "tested with dfew, not with"),
        ({}, None, None, "the version does not say which it was tested with; run `dvc repro register` and"),
        ({}, "mafw", None, "the version does not say which it was tested with"),
        (ONE, None, 7, "the subtitle is not a text; the field subtitle holds what is said in the clip"),
        (ONE, None, "a" * (LONGEST_SUBTITLE + 1), "the subtitle is longer than 4000 characters; shorten it"),
        (ONE, None, "what? \ud83d", "the subtitle has half a character, as of an emoji that was cut; send"),
    ],
)
def test_what_can_not_be_asked_as_in_evaluation_is_not_asked(
    spaces: dict[str, str], dataset: Any, subtitle: Any, said: str
) -> None:
    with pytest.raises(DataError) as refused:
        Question(SHIPPED, spaces).about(dataset, subtitle)
    assert said in str(refused.value)


def test_a_question_without_fields_needs_nothing() -> None:
    for spaces in ({}, ONE, TWO):
        assert Question(Prompt(), spaces).about("ravdess", 7) is None
    assert Question(Prompt("Who?\n{subtitle}"), {}).about("ravdess", "I.") == "Who?\nI."


def test_spaces_of_one_s_own_are_read_from_the_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever has that name where the server is started."""
    write = "name: {}\nlabels:\n  - {{id: 0, name: {}}}\nmaps: {{mafw: {{}}}}\n".format
    for folder, emotion in (("bundle/label_spaces", "joy"), ("data/label_spaces", "calm")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "team.yaml").write_text(write("team", emotion))
    monkeypatch.chdir(tmp_path)
    spaces = spaces_of(Path("bundle"), {"team": "label_spaces/team.yaml", "dfew": None})
    assert list(spaces) == ["dfew", "team"]
    monkeypatch.chdir("/")
    assert Question(Prompt("{labels}"), spaces).about("team") == "joy"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RegistryError, match="was tested with 'team', of which this erv has no label space"):
        spaces_of(Path("bundle"), {"team": None})
    assert spaces_of(Path("bundle"), None) == {}
