"""grpo is killed with SIGKILL, resumes from its checkpoint, and ends where an uninterrupted run ends."""

from __future__ import annotations

import signal
from pathlib import Path

from safetensors.torch import load_file

from benchmarks.gpu.figures import Context
from benchmarks.gpu.trainings import STEPS, Training

SAVED, KILLED = 2, 3  # it resumes from the checkpoint of step 2
# Of a weight, and of a metric: on a CPU bit for bit; a GPU may sum in another order.
WEIGHT, METRIC = {True: 1e-3, False: 0.0}, {True: 0.05, False: 0.0}
COMPARED = ("loss", "reward", "grad_norm", "completion_length")


def resume(context: Context) -> None:
    """Adapters at 0.5b, so that checkpoints are small."""
    lora = {"enabled": context.on_gpu}
    whole = Training(context, "whole", lora=lora, save_steps=SAVED)
    killed = Training(context, "killed", lora=lora, kill_after=KILLED, save_steps=SAVED)
    resumed = Training(context, "resumed", lora=lora, checkpoints="killed", save_steps=SAVED)
    figures = context.figures
    figures.hold("the uninterrupted run ended", whole.run() == 0)
    figures.hold("the other was killed", killed.run() == -signal.SIGKILL and len(killed.steps) == KILLED)
    figures.hold("it resumed", resumed.run() == 0)
    numbers = [int(row["step"]) for row in resumed.steps]
    figures.hold("it went on from the last checkpoint", numbers == list(range(KILLED, STEPS + 1)))
    if figures.faults:
        return
    gap = max(
        abs(one[name] - other[name])
        for one, other in zip(whole.steps[KILLED - 1 :], resumed.steps, strict=True)
        for name in COMPARED
    )
    figures.check("largest difference of a metric", gap, METRIC[context.on_gpu])
    weight = _apart(whole.output, resumed.output)
    figures.check("largest difference of a weight", weight, WEIGHT[context.on_gpu])
    figures.say("bit for bit" if weight == 0 else f"weights differ by at most {weight:.1e}")


def _apart(one: Path, other: Path) -> float:
    """Largest difference of a weight between two policy folders."""
    found = 0.0
    for file in sorted(one.glob("model*.safetensors")):
        theirs = load_file(other / file.name)
        for name, value in load_file(file).items():
            found = max(found, float((value.float() - theirs[name].float()).abs().max()))
    return found
