"""Trainings through `accelerate launch` with one process, and with the base in four bits."""

from __future__ import annotations

import math
from statistics import median
from typing import Any

from benchmarks.gpu.figures import Context
from benchmarks.gpu.trainings import STEPS, Training

CLOSE = {"float32": 1e-4, "bfloat16": 0.05}  # of the first step's loss and gradient norm, relative


def ddp(context: Context) -> None:
    """One process of ddp takes the first step that training without a launcher takes."""
    alone, launched = _train(context, "plain"), _train(context, "ddp", accelerate="ddp")
    if alone and launched:
        for name in ("loss", "grad_norm", "reward"):
            gap = abs(alone[0][name] - launched[0][name]) / max(1e-3, abs(alone[0][name]))
            context.figures.check(f"first step's {name} against no launcher", gap, CLOSE[context.dtype])


def fsdp(context: Context) -> None:
    """One process of FSDP2."""
    _train(context, "fsdp", accelerate="fsdp")


def zero2(context: Context) -> None:
    """One process of DeepSpeed ZeRO-2."""
    _train(context, "zero2", accelerate="zero2")


def zero3(context: Context) -> None:
    """One process of DeepSpeed ZeRO-3."""
    _train(context, "zero3", accelerate="zero3")


def qlora(context: Context) -> None:
    """Adapters on a base in four bits."""
    _train(context, "qlora", lora={"enabled": True, "quantize": "nf4"})


def _train(context: Context, name: str, **changes: Any) -> list[dict[str, float]]:
    """Runs a training to its end and checks that it trained; returns its steps, none if it failed."""
    training = Training(context, name, **changes)
    code = training.run()
    steps = training.steps
    figures = context.figures
    figures.hold(f"{name}: all steps ran and a policy was written", code == 0 and len(steps) == STEPS
                 and (training.output / "config.json").is_file())  # fmt: skip
    if not steps:
        return []
    training.remove()
    finite = all(math.isfinite(row[key]) for row in steps for key in ("loss", "grad_norm"))
    figures.hold(f"{name}: losses and gradients are finite", finite)
    figures.hold(f"{name}: it has gradients", max(row["grad_norm"] for row in steps) > 0)
    seconds = median(row["step_seconds"] for row in steps[1:])
    found = {"step_seconds": round(seconds, 4)} | {
        key: round(steps[-1][key], 4)
        for key in ("gpu_memory_gb", "gpu_memory_reserved_gb")
        if key in steps[-1]
    }
    figures.add(**{name: found})
    memory = f", peak {found['gpu_memory_reserved_gb']:.1f} GB" if "gpu_memory_reserved_gb" in found else ""
    figures.say(f"{seconds:.2f} s a step{memory}")
    return steps
