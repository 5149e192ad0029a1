"""Parameters by dotted name, and where two sets of them differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from erv.errors import SettingsError
from erv.parameters import Change, as_texts, changes, decides, parse, read


def test_sections_become_dotted_names_and_lists_stay_whole() -> None:
    found = parse(b"seed: 1\ngrpo: {beta: 0.02, shaping: {words: 34}}\ndatasets: [mafw, dfew]\nempty: {}\n")
    assert found == {
        "seed": 1,
        "grpo.beta": 0.02,
        "grpo.shaping.words": 34,
        "datasets": ["mafw", "dfew"],
        "empty": {},
    }


def test_texts_are_those_of_yaml() -> None:
    values = {"a": True, "b": None, "c": 3e-4, "d": ["x", 1], "e": "x", "f": [{"k": 1}], "g": []}
    assert as_texts(values) == {
        "a": "true",
        "b": "null",
        "c": "0.0003",
        "d": "[x, 1]",
        "e": "x",
        "f": '[{"k": 1}]',
        "g": "[]",
    }


def test_what_differs_is_in_the_order_of_now_and_then_what_is_gone() -> None:
    found = changes({"a": "1", "gone": "x", "b": "2"}, {"new": "n", "b": "3", "a": "1"})
    assert found == [Change("new", "absent", "n"), Change("b", "2", "3"), Change("gone", "x", "absent")]
    assert found[1].text() == "b 2 → 3"


def test_the_machine_decides_nothing() -> None:
    assert [decides(name) for name in ("machine.processes", "grpo.beta", "machinery")] == [False, True, True]


def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="expected a mapping of sections, found list"):
        parse(b"- 1\n")
    with pytest.raises(SettingsError, match="run this from the top of the repository"):
        read(tmp_path)


def test_in_a_sentence_long_values_are_short() -> None:
    one, two = [{"metric": "WAR", "minimum": 0.5, "maximum": None}], [{"metric": "UAR", "minimum": 0.25}]

    def brief(before: object, now: object) -> str:
        (change,) = changes(as_texts({"a": before}), as_texts({"a": now}))
        return change.brief()

    assert brief(1, 2) == "a 1 → 2"
    assert brief(one * 2, one * 2 + two) == "a: 1 added"
    assert brief(one + two, two + one) == "a: in another order"
    assert brief("x" * 70, "y") == f"a {'x' * 60}… → y"
