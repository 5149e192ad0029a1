"""A step of grpo against the released trainer's way, in turns, on the same policy and clips.

The released way (`benchmarks.grpo_ways`) takes one clip at a time, writes by plain `generate`, and runs
towers, projectors and prompt for every completion. On the same completions both must score alike.
"""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks.gpu.figures import Context
from benchmarks.gpu.policies import GROUP, clips_of, saved_policy
from benchmarks.grpo_measured import MeasuredTrainer
from benchmarks.grpo_sizes import DATASET, SIZES
from benchmarks.grpo_ways import agree, step
from benchmarks.grpo_worker import load_trainer, prompts_of, seconds_of, settings_for

LIMITS = {"float32": 1e-3, "bfloat16": 0.3}  # as in `benchmarks.grpo`
OURS, STATIC, THEIRS = "erv", "erv, static cache", "released"


def released(context: Context) -> None:
    """Median seconds of a step of each way, ratios to the released one, and how far apart they score."""
    chosen, turns = SIZES[context.size], context.rounds + 1
    grpo, runtime = settings_for(context.size, GROUP, 2 * turns + 1, context.device, context.dtype)
    saved_policy(context)
    clips_of(context, chosen.prompts * (2 * turns + 1))
    shards = context.folder / DATASET
    ways = {
        way: load_trainer(way, saved_policy(context), shards, grpo, runtime) for way in ("erv", "released")
    }
    rows = prompts_of(ways["erv"], 2 * turns, chosen.prompts)
    _, ours = step(ways["erv"], rows, update=False)
    _, theirs = step(ways["released"], rows, replay=ours.completions, update=False)
    gaps = agree(ours, theirs)
    context.figures.add(gaps=gaps)
    context.figures.check("largest gap between the ways", max(gaps.values()), LIMITS[context.dtype])
    sides: dict[str, tuple[MeasuredTrainer, bool]] = {
        OURS: (ways["erv"], False),
        STATIC: (ways["erv"], True),
        THEIRS: (ways["released"], False),
    }
    seconds: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    clock = "wall" if context.on_gpu else "cpu"
    for turn in range(turns):
        for name, (trainer, static) in sides.items():
            trainer.static_decode = static
            # A trainer keeps the features of its clips, so each of its sides sees new ones.
            watch, _ = step(trainer, prompts_of(trainer, 2 * turn + static, chosen.prompts))
            if turn:
                seconds[name].append(seconds_of(watch, context.device))
    totals = {name: median(row[clock] for row in found) for name, found in seconds.items()}
    ratios = {name: round(totals[THEIRS] / value, 2) for name, value in totals.items() if name != THEIRS}
    context.figures.add(
        step_seconds={name: round(value, 4) for name, value in totals.items()},
        part_seconds={
            name: {part: round(median(row["parts"][part] for row in found), 4) for part in found[0]["parts"]}
            for name, found in seconds.items()
        },
        times_faster_than_released=ratios,
    )
    context.figures.say(", ".join(f"{name}: {ratio} times faster" for name, ratio in ratios.items()))
