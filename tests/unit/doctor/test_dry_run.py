"""`erv doctor --gpu` on the CPU: the real trainer, full-length completions, nothing left behind."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from erv.doctor.dry_run import dry_run, examine_gpu, random_policy
from erv.doctor.gpus import Accelerator
from erv.doctor.policy_sizes import RELEASED, sizes_of
from erv.environment import load_environment
from erv.errors import TrainingError
from erv.pinning import pin
from erv.policies import Policy
from erv.prompts import INSTRUCTION
from erv.sample.tiny_policy import build_tiny_policy
from tests.support.sizes import SMALLEST


@pytest.fixture
def workspace(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with a pinned base policy and parameters that fit it; temporary files stay inside."""
    raw = yaml.safe_load((root / "params.yaml").read_text())
    raw["runtime"]["device"] = "cpu"
    raw["extract"].update(frames=2, size=32)
    raw["grpo"].update(prompts_per_step=2, num_generations=2, max_completion_length=12)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw))
    Policy(*build_tiny_policy([INSTRUCTION], 0, SMALLEST)).save(tmp_path / "base tree" / "policy")
    (tmp_path / "data" / "sources").mkdir(parents=True)
    lock = tmp_path / "data" / "sources" / "base.lock.json"
    pin("base", str(tmp_path / "base tree"), None).save(lock)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def change(workspace: Path, section: str, **values: Any) -> None:
    raw = yaml.safe_load((workspace / "params.yaml").read_text())
    raw[section] |= values
    (workspace / "params.yaml").write_text(yaml.safe_dump(raw))


def test_a_step_on_the_cpu(workspace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    measured = dry_run(load_environment(workspace))
    assert (measured.rows, measured.tokens) == (4, 12), "every completion has the longest length"
    assert measured.device == "the CPU"
    assert measured.seconds > 0
    assert measured.peak_bytes > 50_000_000
    assert measured.device_bytes is None
    assert measured.estimate is not None
    assert "4 completions of 12 tokens by" in str(measured)
    assert list((workspace / "temporary").iterdir()) == []
    assert not (workspace / "models").exists()
    assert "token" not in capfd.readouterr().err, "libraries have nothing to say"


def test_several_updates_and_passes_and_a_share_of_the_processes(workspace: Path) -> None:
    change(workspace, "grpo", num_iterations=2, max_steps=4, prompts_per_step=4)
    here = {"rows_per_pass": 2, "save_steps": 2, "sample_steps": 20}
    change(workspace, "machine", accelerate="ddp", processes=2, grpo=here)
    (check,) = examine_gpu(workspace=workspace)
    assert check.state == "ok", check
    assert check.detail.startswith("one step of 4 completions of 12 tokens")


def test_what_keeps_it_from_running(workspace: Path) -> None:
    (workspace / "data" / "sources" / "base.lock.json").unlink()
    (finding,) = examine_gpu(workspace=workspace)
    assert (finding.state, finding.detail) == ("fail", "no base policy is pinned")
    assert finding.remedy.startswith("run `erv data pin base`, or name a profile")


def test_a_base_of_another_family(workspace: Path) -> None:
    change(workspace, "policy", family="qwen_omni")
    (check,) = examine_gpu(workspace=workspace)
    assert check.state == "fail"
    assert "a checkpoint of the family humanomni (model_type humanomni), but policy.family" in check.detail
    assert check.remedy == "set policy.family: humanomni, or use a checkpoint of qwen_omni"


@pytest.mark.parametrize("profile", [None, "paper-0.5b"])
def test_without_a_gpu(workspace: Path, profile: str | None) -> None:
    change(workspace, "runtime", device="cuda")
    nothing = Accelerator("2.13.0+cpu", cuda_build=False, gpus=(), bfloat16=False)
    with pytest.raises(TrainingError) as caught:
        dry_run(load_environment(workspace), profile, nothing)
    assert str(caught.value) == (
        "no GPU here (torch 2.13.0+cpu is a build without CUDA), and runtime.device is cuda; run it on a"
        " machine with one, or set runtime.device: cpu to measure the same step on the CPU"
    )


def test_clips_that_the_policy_does_not_take(workspace: Path) -> None:
    change(workspace, "extract", size=64)
    (finding,) = examine_gpu(workspace=workspace)
    assert finding.state == "fail"
    assert "this policy takes uint8 [2, 32, 32, 3]" in finding.detail
    assert finding.remedy == "set extract.frames: 2 and extract.size: 32"


def test_random_weights_of_released_shapes(workspace: Path) -> None:
    """As for a profile without its checkpoint, with narrower parts."""
    released = RELEASED["HumanOmni-0.5B"] | {
        "hidden_size": 28, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "intermediate_size": 40, "vocab_size": 3000, "num_frames": 2,
    }  # fmt: skip
    vision = {"model_type": "siglip_vision_model", "hidden_size": 16, "num_hidden_layers": 1,
              "num_attention_heads": 2, "intermediate_size": 16, "patch_size": 16,
              "image_size": 64}  # fmt: skip
    audio = {"model_type": "whisper", "d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2,
             "encoder_ffn_dim": 16, "num_mel_bins": 128, "max_source_positions": 100}  # fmt: skip
    gate = {"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 16, "vocab_size": 300}  # fmt: skip
    policy = random_policy(released, vision_config=vision, audio_config=audio, gate_config=gate)
    sizes = sizes_of(policy.model.config.to_dict(), "random")
    assert sizes is not None
    assert sizes.parameters == sum(p.numel() for p in policy.model.parameters())
    assert sizes.vocabulary == 3000, "more than the tokenizer knows, as in the released tables"
    policy.save(workspace / "other tree" / "policy")
    lock = workspace / "data" / "sources" / "base.lock.json"
    pin("base", str(workspace / "other tree"), None).save(lock)
    change(workspace, "extract", size=64)
    (finding,) = examine_gpu(workspace=workspace)
    assert finding.state == "ok", finding
