"""`erv doctor --profile`: what is missing is named, and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from erv.cli import command
from erv.doctor.finding import Finding
from erv.doctor.gpus import Accelerator, Gpu
from erv.doctor.lacks import disk_bytes, examine_profile
from erv.doctor.policy_sizes import RELEASED, nominal
from erv.errors import SettingsError
from erv.pinning import pin
from erv.prompts import INSTRUCTION
from erv.sample.tiny_policy import build_tiny_policy
from erv.settings.profile import load_profile, merged, use
from erv.sources.lock import Lock, SourceFile
from tests.support.sizes import SMALLEST

NOTHING = Accelerator("2.13.0+cpu", cuda_build=False, gpus=(), bfloat16=False)
H100 = Accelerator("2.13.0", cuda_build=True, gpus=(Gpu("H100", 85_000_000_000),), bfloat16=True)
T4 = Accelerator("2.13.0", cuda_build=True, gpus=(Gpu("T4", 16_000_000_000),), bfloat16=False)
CLIPS = {"mafw": 10045, "dfew": 16372}


@pytest.fixture
def workspace(root: Path, tmp_path: Path) -> Path:
    shutil.copy(root / "params.yaml", tmp_path)
    (tmp_path / "data" / "sources").mkdir(parents=True)
    return tmp_path


def found(workspace: Path, here: Accelerator = H100, name: str = "paper-0.5b") -> dict[str, Finding]:
    return {finding.name: finding for finding in examine_profile(name, workspace, here)}


def failed(findings: dict[str, Finding]) -> list[str]:
    return sorted(name for name, finding in findings.items() if finding.state == "fail")


def write_lock(workspace: Path, name: str, paths: dict[str, int], uri: str | None = None) -> None:
    files = tuple(SourceFile(path, size, f"{index:064x}") for index, (path, size) in enumerate(paths.items()))
    Lock(name, uri or f"s3://erv-raw/{name}", files).save(
        workspace / "data" / "sources" / f"{name}.lock.json"
    )


def complete(workspace: Path) -> None:
    """All that the profile needs: parameters, a base of the right shape, data of the published sizes."""
    use(load_profile("paper-0.5b"), workspace / "params.yaml")
    tree = workspace / "base tree"
    (tree / "policy").mkdir(parents=True)
    (tree / "policy" / "config.json").write_text(json.dumps(RELEASED["HumanOmni-0.5B"]))
    lock = pin("base", str(tree), None)
    weights = {"policy/model.safetensors": 2_700_000_000, "policy/processor_config.json": 900,
               "encoder/config.json": 1000, "encoder/model.safetensors": 499_000_000,
               "sentence_encoder/config.json": 600}  # fmt: skip
    more = tuple(
        SourceFile(path, size, f"{index:064x}") for index, (path, size) in enumerate(weights.items())
    )
    Lock("base", lock.uri, (*lock.files, *more)).save(workspace / "data" / "sources" / "base.lock.json")
    params = (workspace / "params.yaml").read_text()
    (workspace / "params.yaml").write_text(params.replace("base: s3://erv-raw/base", f"base: {lock.uri}"))
    for name, clips in CLIPS.items():
        write_lock(workspace, name, {f"clips/{clip:05d}.mp4": 300_000 for clip in range(clips)})
    write_lock(workspace, "reasoning", {"EMER.csv": 1000, "sentence_labels.csv": 1000})
    write_lock(workspace, "judge", {"texts.csv": 1000})


def test_a_bare_machine(workspace: Path) -> None:
    findings = found(workspace, NOTHING)
    assert {"parameters", "base policy", "base encoder", "gpu"} <= set(failed(findings))
    assert {"data mafw", "data dfew", "data reasoning", "data judge"} <= set(failed(findings))
    assert "grpo.num_generations 8 (profile: 4)" in findings["parameters"].detail
    assert findings["parameters"].remedy == "`erv params use paper-0.5b`"
    assert findings["base policy"].detail == "HumanOmni-0.5B is missing: sources.base is not pinned"
    assert findings["gpu"].detail.startswith(
        "none here: torch 2.13.0+cpu is a build without CUDA; the profile needs 1 GPU(s) with "
    )
    assert "released sizes of HumanOmni-0.5B" in findings["memory grpo"].detail
    assert findings["sequence"].detail.startswith("392 tokens of frames + 500 of sound")


def test_nothing_is_missing(workspace: Path) -> None:
    complete(workspace)
    findings = found(workspace)
    assert set(failed(findings)) <= {"disk needed"}, "which the machine of the tests may not have"
    assert findings["parameters"].detail == "those of paper-0.5b"
    assert findings["base policy"].detail.endswith("/policy, 2.70 GB of weights")
    assert findings["data mafw"].detail == "s3://erv-raw/mafw, 10045 files are pinned"
    assert findings["gpu"].detail == "H100 (85.0 GB)"
    assert findings["memory grpo"].detail.endswith(" of 85.0 GB")
    assert "sizes of the pinned checkpoint" in findings["sequence"].detail


def test_each_thing_that_is_taken_away_is_named(workspace: Path) -> None:
    complete(workspace)
    sources = workspace / "data" / "sources"
    disk = set(failed(found(workspace)))

    def missing() -> list[str]:
        return [name for name in failed(found(workspace)) if name not in disk]

    (sources / "dfew.lock.json").unlink()
    assert missing() == ["data dfew"]
    write_lock(workspace, "dfew", {"clip/1.mp4": 1})
    assert found(workspace)["data dfew"].detail.startswith("s3://erv-raw/dfew has 1 clips, ")
    write_lock(workspace, "dfew", {f"{clip}.mp4": 1 for clip in range(16372)}, uri="s3://elsewhere/dfew")
    assert (
        found(workspace)["data dfew"].detail
        == "pinned at s3://elsewhere/dfew, sources.dfew is s3://erv-raw/dfew"
    )
    write_lock(workspace, "dfew", {f"{clip}.mp4": 1 for clip in range(16372)})
    write_lock(workspace, "reasoning", {"EMER.csv": 1, "sentence_labels.csv": 1, "SAMPLE.txt": 1})
    assert missing() == ["data reasoning"]
    assert found(workspace)["data reasoning"].detail.endswith("is the sample corpus")
    write_lock(workspace, "reasoning", {"EMER.csv": 1})
    assert missing() == ["teachers"]
    assert "sentence_labels.csv" in found(workspace)["teachers"].detail
    write_lock(workspace, "judge", {"other.csv": 1})
    assert missing() == ["judges", "teachers"]
    assert found(workspace)["judges"].remedy == "add it and pin again"
    write_lock(workspace, "judge", {"texts.csv": 1000})
    (sources / "reasoning.lock.json").write_text("{}")
    assert missing() == ["data reasoning"]


def test_the_tiny_base_is_not_the_paper_s(workspace: Path) -> None:
    tree = workspace / "tiny"
    model, _ = build_tiny_policy([INSTRUCTION], 0, SMALLEST)
    model.save_pretrained(tree / "policy")
    shutil.copytree(tree / "policy", tree / "encoder")
    pin("base", str(tree), None).save(workspace / "data" / "sources" / "base.lock.json")
    findings = found(workspace)
    assert findings["base policy"].detail.endswith("/tiny/policy is not HumanOmni-0.5B")
    assert "too small for the method's classifier" in findings["base encoder"].detail
    assert findings["sequence"].state == "ok", "reckoned with the sizes that the profile names"
    demo = found(workspace, NOTHING, "demo")
    assert "has no policy/processor_config.json" in demo["base policy"].detail
    assert demo["sequence"].state == "fail", "the demo extracts other frames than this policy takes"
    config = tree / "policy" / "config.json"
    config.write_text(json.dumps({"model_type": "qwen_omni"}))
    pin("base", str(tree), None).save(workspace / "data" / "sources" / "base.lock.json")
    for profile in ("paper-0.5b", "demo"):
        other = found(workspace, NOTHING, profile)["base policy"]
        assert "/tiny/policy: a checkpoint of the family qwen_omni (model_type qwen_omni)" in other.detail
        assert other.remedy == "set policy.family: qwen_omni, or use a checkpoint of humanomni"


def test_gpus_that_do_not_do(workspace: Path) -> None:
    use(load_profile("paper-0.5b"), workspace / "params.yaml")
    checks = found(workspace, T4)
    assert {"precision", "memory sft", "memory grpo"} <= set(failed(checks))
    assert checks["memory grpo"].detail.endswith("the GPU has 16.0 GB")
    assert checks["memory grpo"].remedy.startswith(
        "lower machine.grpo.rows_per_pass, set grpo.gradient_checkpointing"
    )
    raw = yaml.safe_load((workspace / "params.yaml").read_text())
    raw["machine"].update(processes=4, accelerate="zero2")
    raw["machine"]["grpo"]["rows_per_pass"], raw["machine"]["sft"]["rows_per_pass"] = 4, 2
    (workspace / "params.yaml").write_text(yaml.safe_dump(raw))
    checks = found(workspace)
    assert checks["gpu"].detail == "1 here, machine.processes is 4"
    assert checks["parameters"].state == "ok"
    assert "machine.processes 4 (profile: 1)" in checks["parameters"].detail
    package = checks["package deepspeed"]
    assert package.detail.endswith("machine.accelerate is zero2")
    assert package.state == ("fail" if package.detail.startswith("not installed") else "ok")


def test_disk(root: Path) -> None:
    sizes = nominal("HumanOmni-0.5B")
    settings = merged(load_profile("paper-0.5b"), root / "params.yaml")
    shards = disk_bytes(settings, sizes, 20_869) - disk_bytes(settings, sizes, 0)
    assert shards == pytest.approx(2 * 20_869 * (8 * 224 * 224 * 3 * 0.77 + 128_000), rel=0.01)
    assert disk_bytes(settings, sizes, 0) > 10 * 4 * sizes.parameters


def test_command(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    result = CliRunner().invoke(command, ["doctor", "--profile", "paper-7b"])
    assert result.exit_code == 1
    assert "FAIL  base policy     HumanOmni-7B is missing: sources.base is not pinned" in result.output
    assert "checks failed" in result.output
    with pytest.raises(SettingsError, match="no profile 'paper'"):
        CliRunner().invoke(command, ["doctor", "--profile", "paper"], catch_exceptions=False)
