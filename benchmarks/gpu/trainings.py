"""Starts trainings by grpo in processes of their own, plain or through `accelerate launch`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu.figures import Context
from benchmarks.gpu.policies import clips_of, saved_policy, settings_of
from benchmarks.grpo_sizes import DATASET, SIZES
from erv.training.common.ranks import launch_command

ROOT = Path(__file__).parents[2]
MODULE = "benchmarks.gpu.training_run"
STEPS = 4
COMPLETION = 64  # tokens: these parts are about the update, not about generation


class Training:
    """A training of a policy of this size; its folders and figures go by its name."""

    def __init__(self, context: Context, name: str, **changes: Any) -> None:
        """Describes the training.

        Args:
            context: of the part.
            name: names its folders.
            **changes: `accelerate` (a configuration), `lora` (parameters), `kill_after` (a step),
                `checkpoints` (the name of another training whose checkpoints it shares), `save_steps`.
        """
        self.accelerate = changes.get("accelerate")
        self.output = context.folder / f"{name}-policy"
        self._metrics = context.folder / f"{name}.jsonl"
        self._checkpoints = context.folder / f"{changes.get('checkpoints', name)}-checkpoints"
        settings = settings_of(context, min(COMPLETION, SIZES[context.size].completion))
        self._runtime = settings.runtime
        self._machine = settings.machine.model_copy(update={"accelerate": self.accelerate})
        if not (context.folder / DATASET).is_dir():
            clips_of(context, STEPS * settings.grpo.prompts_per_step)
        kept = ("prompts_per_step", "num_generations", "max_completion_length", "num_iterations")
        specification = {
            "policy": str(saved_policy(context)),
            "shards": str(context.folder / DATASET),
            "output": str(self.output),
            "checkpoints": str(self._checkpoints),
            "metrics": str(self._metrics),
            "grpo": {field: getattr(settings.grpo, field) for field in kept}
            | {"max_steps": STEPS, "epochs": None, "gradient_checkpointing": False},
            "lora": {"enabled": False, "quantize": "none"} | changes.get("lora", {}),
            "machine": {"accelerate": self.accelerate, "processes": 1},
            "grpo_machine": {
                "rows_per_pass": None,
                "save_steps": changes.get("save_steps", 100),
                "sample_steps": 100,
            },
            "runtime": {"device": context.device, "dtype": context.dtype},
            "kill_after": changes.get("kill_after"),
        }
        self._specification = context.folder / f"{name}.json"
        self._specification.write_text(json.dumps(specification), encoding="utf-8")

    def run(self) -> int:
        """Runs it; returns its exit code, which is minus the signal that ended it.

        What it printed goes to this process's stderr.
        """
        arguments = [str(self._specification)]
        variables = dict(os.environ)
        if self.accelerate is None:
            command = [sys.executable, "-m", MODULE, *arguments]
        else:
            command = launch_command(MODULE, arguments, self._runtime, self._machine, ROOT)
            variables["ERV_LAUNCHED"] = "1"
        done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
        sys.stderr.write(done.stdout[-4000:] + done.stderr[-8000:])
        return done.returncode

    def remove(self) -> None:
        """Removes policy and checkpoints, which take gigabytes."""
        for folder in (self.output, self._checkpoints):
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def steps(self) -> list[dict[str, float]]:
        """The metrics of its steps, each with its number as `step`."""
        if not self._metrics.is_file():
            return []
        return [json.loads(line) for line in self._metrics.read_text(encoding="utf-8").splitlines()]
