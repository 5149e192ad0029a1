"""What the form of a flow offers: the stages that there are when it is deployed."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from erv.stack.deployments import PLACED_VARIABLE, SOURCES_VARIABLE, STAGES_VARIABLE, placed_by_default
from flows.form import PlacedStage, SourceNames, StageName, StageNames, Version
from tests.support.paths import ROOT


@pytest.fixture(autouse=True)
def _pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (STAGES_VARIABLE, PLACED_VARIABLE):
        monkeypatch.setenv(variable, "sft grpo pack sft@half.5 grpo@erv grpo@r1_omni pack@one")


def schema(what: Any) -> dict[str, Any]:
    return TypeAdapter(what).json_schema()


def test_one_stage_is_none_of_several() -> None:
    """A step of two stages was offered, and failed in the run."""
    assert schema(StageName)["enum"] == [
        "",
        "sft",
        "pack",
        "sft@half.5",
        "grpo@erv",
        "grpo@r1_omni",
        "pack@one",
    ]
    assert "grpo" in schema(StageNames)["items"]["enum"]


def test_sources_are_offered_as_they_are_then(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "enum" not in schema(SourceNames)["items"], "whoever makes the schema for itself knows none"
    monkeypatch.setenv(SOURCES_VARIABLE, "base mafw")
    assert schema(SourceNames)["items"]["enum"] == ["base", "mafw"]


def test_a_number_may_be_a_version_and_nothing_may_not() -> None:
    for fits in (4, "4", "challenger"):
        assert TypeAdapter(Version).validate_python(fits) == fits
    for wrong in ("", 0, 1.5, None):
        with pytest.raises(ValidationError):
            TypeAdapter(Version).validate_python(wrong)
    assert {one["type"] for one in schema(Version)["anyOf"]} == {"integer", "string"}


def test_a_placement_names_what_there_is() -> None:
    """A stage that isn't there was taken, and failed in the run."""
    pattern = schema(PlacedStage)["pattern"]
    for fits in ("grpo=gpu", "grpo@erv=A100.big", "sft@half.5=gpu"):
        assert re.search(pattern, fits), fits
    for wrong in ("nope=gpu", "grpo@nope=gpu", "sft@half-5=gpu", "grpo", "grpo=no pool", "xgrpo=gpu", "=gpu"):
        assert not re.search(pattern, wrong), wrong


def test_without_a_pipeline_any_stage_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PLACED_VARIABLE)
    pattern = schema(PlacedStage)["pattern"]
    assert re.search(pattern, "any@one=gpu")
    assert not re.search(pattern, "any=no pool")


def test_what_the_deployments_place() -> None:
    assert placed_by_default(ROOT) == ["sft", "train_erv", "grpo"]
