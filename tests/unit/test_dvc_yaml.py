"""`dvc.yaml` says all that a stage depends on: its script, its code, its parameters."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from erv.pipeline import read_stages, select
from erv.settings.grpo import GrpoSettings
from tests.support.paths import ROOT

PIPELINE: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
STAGES = list(PIPELINE)


def test_the_fifteen_stages_in_order() -> None:
    assert STAGES == [
        "ingest", "validate", "extract", "leakage", "sft", "rollouts", "distill", "train_erv", "grpo",
        "arms", "evaluate", "controls", "grounding", "report", "register",
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
    assert len(stages) == 3 * 3 + 4 + 2 + 3 + 3
    data = [f"{step}@{name}" for step in ("extract", "ingest") for name in ("dfew", "mafw", "reasoning")]
    assert stages["leakage"].upstream == tuple(data)
    assert stages["grpo@erv"].upstream == ("leakage", "sft", "train_erv")
    assert "report" in stages["register"].upstream
    for last in ("grounding", "report", "register"):
        assert {"evaluate@sft", "evaluate@r1_omni", "evaluate@erv"} <= set(stages[last].upstream)


def test_the_verifier_is_trained_beside_the_cold_start() -> None:
    """The demo has no rollouts, so neither distill nor train_erv may wait for sft."""
    stages = {stage.name: stage for stage in read_stages(ROOT)}
    needed = {stage.name for stage in select(tuple(stages.values()), ["train_erv"])}
    assert "distill" in needed
    assert not needed & {"sft", "rollouts@sft"}
    assert stages["distill"].upstream == ("ingest@reasoning", "leakage")


def test_controls_run_for_the_policies_that_are_named(tmp_path: Path) -> None:
    """None in the demo: each costs as much as an evaluation."""
    assert not [stage for stage in read_stages(ROOT) if stage.group == "controls"]
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["controls"]["policies"] = ["erv"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / ".dvc").mkdir()
    stages = {stage.name: stage for stage in read_stages(tmp_path)}
    assert "evaluate@erv" in stages["controls@erv"].upstream
    assert "controls@erv" in stages["report"].upstream


@pytest.mark.parametrize("generation", get_args(GrpoSettings.model_fields["generation"].annotation))
def test_grpo_depends_on_the_versions_of_what_writes_its_completions(generation: str, tmp_path: Path) -> None:
    """A new version of vLLM ran nothing again."""
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["grpo"]["generation"] = generation
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / ".dvc").mkdir()
    (trained,) = [stage for stage in read_stages(tmp_path) if stage.name == "grpo@erv"]
    read = {path for path in trained.dependencies if path.startswith("requirements/")}
    assert read == {
        "requirements/results-3.11.lock",
        "requirements/lora-none.txt",
        f"requirements/{generation}.txt",
    }


def test_training_depends_on_the_version_of_what_rounds_its_weights(tmp_path: Path) -> None:
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["sft"]["lora"] |= {"enabled": True, "quantize": "nf4"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / ".dvc").mkdir()
    read = {stage.name: set(stage.dependencies) for stage in read_stages(tmp_path)}
    files = {"requirements/lora-none.txt", "requirements/lora-nf4.txt"}
    found = {name: paths & files for name, paths in read.items() if paths & files}
    assert found == {
        "sft": {"requirements/lora-nf4.txt"},
        "grpo@erv": {"requirements/lora-none.txt"},
        "grpo@r1_omni": {"requirements/lora-none.txt"},
    }


def test_every_output_is_cached() -> None:
    for stage, definition in PIPELINE.items():
        for out in [*definition.get("outs", []), *definition.get("metrics", [])]:
            assert isinstance(out, str), (
                f"{stage}: {out}: a flag on an out breaks restores from the run cache"
            )
