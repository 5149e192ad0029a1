"""GRPO in two processes on the CPU (gloo), started by `accelerate launch`: the same numbers as in one."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.commands.config import load_config_from_file
from safetensors.torch import load_file

from erv.errors import SettingsError
from erv.training.common.ranks import CONFIGURATIONS, launch, launch_command
from erv.training.common.throughput import TIMED
from tests.support.paths import ROOT
from tests.support.runtime import RUNTIME, machine
from tests.support.tiny_grpo import write_cold_start, write_shards

REPOSITORY = ROOT
# Plain gradient descent: its update is the gradient, where Adam's would be little more than the sign of it.
RECORDED: dict[str, Any] = {"recorded": True, "optimizer": "sgd"}
ONE_STEP = {"max_steps": 1, "learning_rate": 1.0, "prompts_per_step": 4}
LOSSES = ("grpo", "dapo")


def run_worker(folder: Path, processes: int, runs: list[dict[str, Any]]) -> None:
    """Runs `tests.support.grpo_worker` as `erv.training.common.ranks.launch` would."""
    specification = folder / f"specification-{processes}.json"
    specification.write_text(json.dumps({"folder": str(folder), "processes": processes, "runs": runs}))
    here = machine(accelerate="ddp", processes=processes)
    command = launch_command("tests.support.grpo_worker", [str(specification)], RUNTIME, here, REPOSITORY)
    environment = os.environ | {
        "ERV_LAUNCHED": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{REPOSITORY}:src",
    }
    result = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same runs in one process and in two."""
    folder = tmp_path_factory.mktemp("processes")
    write_cold_start(folder / "sft")
    write_shards(folder / "shards" / "mafw")
    for processes in (1, 2):
        runs = [
            RECORDED | {"name": f"{loss}-{processes}", "settings": ONE_STEP | {"loss_type": loss}}
            for loss in LOSSES
        ]
        runs.append(RECORDED | {"name": f"passes-{processes}", "settings": ONE_STEP, "rows_per_pass": 2})
        by_sentence = {"settings": ONE_STEP | {"credit": "sentence"}, "credited": True}
        runs.append(RECORDED | by_sentence | {"name": f"credit-{processes}"})
        if processes == 2:
            sampled = {"settings": {"max_steps": 4}, "counted": True}
            runs += [
                sampled | {"name": "whole"},
                sampled | {"name": "stopped", "stop_in": 3, "checkpoints": "resumed"},
                sampled | {"name": "resumed"},
            ]
        run_worker(folder, processes, runs)
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def metrics(folder: Path, name: str) -> list[dict[str, float]]:
    found = json.loads((folder / f"{name}.json").read_text())
    return [{k: v for k, v in step.items() if k not in TIMED} for step in found]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*LOSSES, "passes", "credit"])
def test_two_processes_make_the_update_of_one(folder: Path, name: str) -> None:
    (one,), (two,) = (metrics(folder, f"{name}-{count}") for count in (1, 2))
    assert one.keys() == two.keys()
    for key in ("loss", "reward", "reward_std", "kl", "entropy", "completion_length", "grad_norm"):
        assert two[key] == pytest.approx(one[key], abs=1e-5, rel=1e-5), key
    cold, alone, together = (weights(folder / part) for part in ("sft", f"{name}-1", f"{name}-2"))
    moved = max(float((alone[key] - cold[key]).abs().max()) for key in cold)
    assert moved > 1e-3
    for key, value in alone.items():
        torch.testing.assert_close(together[key], value, atol=1e-5, rtol=0, msg=key)


@pytest.mark.slow
def test_a_resumed_run_of_two_processes_is_the_uninterrupted_one(folder: Path) -> None:
    assert not (folder / "stopped").exists()
    assert metrics(folder, "resumed") == metrics(folder, "whole")[2:]
    whole, resumed = weights(folder / "whole"), weights(folder / "resumed")
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())
    checkpoint = folder / "resumed-checkpoints" / "checkpoint-4"
    assert (checkpoint / "seen").read_text() == (checkpoint / "process-1" / "seen").read_text() == "16"


@pytest.mark.parametrize("name", ["fsdp", "zero2", "zero3"])
def test_a_cpu_runs_ddp_alone(name: str, tmp_path: Path) -> None:
    here = machine(accelerate=name, processes=2)
    with pytest.raises(SettingsError, match=f"accelerate is {name}, which needs GPUs; on a CPU use ddp"):
        launch("stages.grpo", [], RUNTIME, here, REPOSITORY)


@pytest.mark.parametrize("name", ["ddp", "fsdp", "zero2", "zero3"])
def test_accelerate_reads_every_configuration(name: str) -> None:
    path = REPOSITORY / CONFIGURATIONS / f"{name}.yaml"
    kinds = {"ddp": "MULTI_GPU", "fsdp": "FSDP", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}
    assert load_config_from_file(str(path)).distributed_type.value == kinds[name]


def test_a_launch_needs_its_configuration(tmp_path: Path) -> None:
    here = machine(accelerate="zero3", processes=2)
    with pytest.raises(SettingsError, match=r"infra/accelerate/zero3\.yaml: not found"):
        launch_command("stages.grpo", [], RUNTIME, here, tmp_path)
