"""`dvc.yaml` says all that a stage depends on: its script, its code, its parameters."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from erv.pipeline import read_stages, select
from tests.support.paths import ROOT

PIPELINE: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
STAGES = list(PIPELINE)


def test_the_twelve_stages_in_order() -> None:
    assert STAGES == [
        "ingest", "validate", "extract", "leakage", "sft", "rollouts", "distill", "train_erv", "grpo",
        "evaluate", "report", "register",
    ]  # fmt: skip


@pytest.mark.parametrize("stage", STAGES)
def test_its_script_exists_and_is_a_dependency(stage: str) -> None:
    assert f"python -m stages.{stage} " in PIPELINE[stage]["cmd"]
    assert (ROOT / "stages" / f"{stage}.py").is_file()
    assert f"stages/{stage}.py" in PIPELINE[stage]["deps"]


@pytest.mark.parametrize("stage", STAGES)
def test_it_names_each_dependency_once(stage: str) -> None:
    assert len(set(PIPELINE[stage]["deps"])) == len(PIPELINE[stage]["deps"])


def test_dvc_itself_reads_the_graph() -> None:
    stages = {stage.name: stage for stage in read_stages(ROOT)}
    assert len(stages) == 3 * 3 + 4 + 2 + 3 + 2
    data = [f"{step}@{name}" for step in ("extract", "ingest") for name in ("dfew", "mafw", "reasoning")]
    assert stages["leakage"].upstream == tuple(data)
    assert stages["grpo@erv"].upstream == ("leakage", "sft", "train_erv")
    assert "report" in stages["register"].upstream
    for last in ("report", "register"):
        assert {"evaluate@sft", "evaluate@r1_omni", "evaluate@erv"} <= set(stages[last].upstream)


def test_the_verifier_is_trained_beside_the_cold_start() -> None:
    """The demo has no rollouts, so neither distill nor train_erv may wait for sft."""
    stages = {stage.name: stage for stage in read_stages(ROOT)}
    needed = {stage.name for stage in select(tuple(stages.values()), ["train_erv"])}
    assert "distill" in needed
    assert not needed & {"sft", "rollouts@sft"}
    assert stages["distill"].upstream == ("ingest@reasoning", "leakage")


def test_every_output_is_cached() -> None:
    for stage, definition in PIPELINE.items():
        for out in [*definition.get("outs", []), *definition.get("metrics", [])]:
            assert isinstance(out, str), (
                f"{stage}: {out}: a flag on an out breaks restores from the run cache"
            )
