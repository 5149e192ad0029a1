"""Reigns as tags of MLflow."""

from __future__ import annotations

import json

import pytest

from erv.register.reign import tag_text

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
