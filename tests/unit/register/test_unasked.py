"""Gates that were added to the parameters after a candidate was made are not passed by it."""

from __future__ import annotations

from pathlib import Path

import pytest

from erv.register.publish import PublishResult
from erv.register.register import Bundle
from erv.register.unasked import unasked
from erv.register.verdict import CANT_TELL, Verdict
from erv.settings import GateSettings, Settings, load_settings

OLD = {"metric": "WAR", "minimum": 0.5}
NEW = {"metric": "preference", "study": "pilot", "against": "sft", "minimum": 0.0}


def with_gates(root: Path, *gates: dict) -> Settings:
    settings = load_settings(root / "params.yaml")
    register = settings.register_.model_copy(update={"gates": tuple(GateSettings(**gate) for gate in gates)})
    return settings.model_copy(update={"register_": register})


def bundle() -> Bundle:
    return Bundle(Path(), "b", {}, (Verdict("WAR", minimum=0.5, low=0.6, high=0.7, outcome="pass"),))


def test_a_gate_that_the_candidate_was_made_without_cant_be_told(root: Path) -> None:
    assert unasked(bundle(), with_gates(root, OLD)) == ()
    (found,) = unasked(bundle(), with_gates(root, OLD, NEW))
    assert found.outcome == CANT_TELL
    assert found.text() == (
        "can't tell: preference over sft (study pilot): the candidate was made before params.yaml had this"
        " gate; `erv run` decides it"
    )


def test_another_bound_is_another_gate(root: Path) -> None:
    (found,) = unasked(bundle(), with_gates(root, {**OLD, "minimum": 0.8}))
    assert (found.metric, found.minimum, found.passed) == ("WAR", 0.8, False)


@pytest.mark.parametrize("aliases", [("challenger",), ("champion",)])
def test_nobody_says_then_that_all_gates_hold(root: Path, aliases: tuple[str, ...]) -> None:
    verdicts = (*bundle().verdicts, *unasked(bundle(), with_gates(root, OLD, NEW)))
    result = PublishResult("policy", "1", aliases, verdicts, new=False, champion="1")
    assert not result.passed
    said = "\n".join(result.lines())
    assert "all gates hold" not in said
    assert "1 of 2 gates:\n  can't tell: preference over sft" in said
