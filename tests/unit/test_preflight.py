"""What would be found out after hours is found out before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from erv.environment import load_environment
from erv.pipeline import PipelineError, PipelineStage
from erv.preflight import check

STAGES = [
    PipelineStage(name, (), "true", (), ())
    for name in ("grpo@r1_omni", "grpo@erv", "evaluate@r1_omni", "evaluate@erv", "report", "register")
]


@pytest.fixture
def raw(root: Path) -> dict[str, Any]:
    return yaml.safe_load((root / "params.yaml").read_text())


def checked(raw: dict[str, Any], folder: Path, stages: list[PipelineStage]) -> None:
    (folder / "params.yaml").write_text(yaml.safe_dump(raw))
    check(load_environment(folder), stages)


def test_shipped_parameters_fit_the_stages(raw: dict[str, Any], tmp_path: Path) -> None:
    checked(raw, tmp_path, STAGES)


def test_a_variant_without_a_stage(raw: dict[str, Any], tmp_path: Path) -> None:
    raw["grpo"]["variants"]["third"] = raw["grpo"]["variants"]["erv"]
    with pytest.raises(PipelineError, match=r"variants\.third: dvc\.yaml has no grpo@third, evaluate@third"):
        checked(raw, tmp_path, STAGES)
    checked(raw, tmp_path, STAGES[:2])


def test_figures_on_validation_clips_are_not_registered(raw: dict[str, Any], tmp_path: Path) -> None:
    raw["evaluate"]["split"] = "validation"
    with pytest.raises(PipelineError, match=r"evaluate\.split is validation, but register"):
        checked(raw, tmp_path, STAGES)
    checked(raw, tmp_path, STAGES[:-1])
