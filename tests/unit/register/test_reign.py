"""Reigns as tags of MLflow."""

from __future__ import annotations

import json

import pytest

from erv.register.aliases import _way_back
from erv.register.reign import Reign, tag_text

LIMIT = 4900


def test_what_fits_is_kept_whole() -> None:
    content = {"by": "ann@box", "reason": "better", "forced": ["a", "b"]}
    assert json.loads(tag_text(content)) == content


def test_of_too_many_gates_the_first_are_kept() -> None:
    gates = [f"fail: gate {number} {'x' * 200}" for number in range(40)]
    text = tag_text({"by": "ann@box", "reason": "better", "forced": gates})
    found = json.loads(text)
    assert len(text) <= LIMIT
    kept = len(found["forced"]) - 1
    assert found["forced"] == [*gates[:kept], f"and {40 - kept} more"]
    assert kept > 15
    assert found["reason"] == "better"


@pytest.mark.parametrize("letter", ["x", '"', "\n", "\x01", "ä"])
@pytest.mark.parametrize("gates", [[], ["fail: EPC"]])
def test_a_reason_that_is_too_long_is_cut_and_says_so(letter: str, gates: list[str]) -> None:
    text = tag_text({"by": "ann@box", "reason": letter * 6000, "forced": gates})
    assert len(text) <= LIMIT
    assert json.loads(text)["reason"].endswith("…")


@pytest.mark.parametrize(
    ("reign", "text"),
    [
        (Reign("2"), "version 2, by other means than erv, or by a command that was interrupted"),
        (
            Reign("2", deleted=True),
            "version 2, which was deleted, by other means than erv, or by a command that was interrupted",
        ),
        (Reign("2", "T", "ann@box", "gates"), "version 2 since T, gates by ann@box"),
        (
            Reign("2", "T", "ann@box", "promote", "better", ("fail: EPC",), deleted=True),
            "version 2, which was deleted, since T, promote by ann@box: better\n  1 gate overridden:\n"
            "    fail: EPC",
        ),
    ],
)
def test_a_reign_as_text(reign: Reign, text: str) -> None:
    assert reign.text() == text


def test_gates_are_listed_once_and_fit_a_terminal() -> None:
    """`overridden` stood before each of them, in lines of any length."""
    gates = [f"can't tell: EPC minus champion (judge {name}): {'it was compared, ' * 12}" for name in "ab"]
    reign = Reign("2", "T", "Ann (ann@box)", "promote", "better " * 30, (*gates, gates[0]))
    lines = reign.text(100).split("\n")
    assert max(map(len, lines)) <= 100
    assert sum("overridden" in line for line in lines) == 1
    assert lines.count("  2 gates overridden:") == 1
    starts = [line for line in lines if line.startswith("    can't tell: EPC minus champion (judge")]
    assert len(starts) == 2
    whole = " ".join(reign.text(100).split())
    assert whole == " ".join(reign.text().split()), "nothing is lost"
    assert Reign("2", "T", "ann@box", "promote", forced=("x" * 120,)).text(100).endswith("    " + "x" * 120)


@pytest.mark.parametrize(
    ("history", "there", "way", "gone"),
    [
        ("12", "12", "1", ""),
        ("123", "13", "1", "2"),
        ("1213", "23", "12", "1"),
        ("121", "1", "", "2"),  # back to itself is no way back
        ("1232", "2", "", "31"),
        ("1", "1", "", ""),
        ("12", "1", "1", ""),  # the champion itself was deleted
        ("", "", "", ""),
    ],
)
def test_the_way_back_leads_over_versions_that_exist(history: str, there: str, way: str, gone: str) -> None:
    assert _way_back(list(history), set(there)) == (list(way), list(gone))
