"""The largest batch of a grpo step on this GPU: twice as many clips each time, until memory is out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu.figures import Context, Figures
from benchmarks.gpu.policies import GROUP, clips_of, counted, loaded_policy, peaks_now, settings_of
from benchmarks.gpu.steps import frozen_half, grpo_trainer
from benchmarks.grpo_sizes import DATASET
from benchmarks.grpo_ways import step
from erv.doctor import fit

MOST = 256  # clips; 2,048 completions

OutOfMemory = torch.cuda.OutOfMemoryError


def largest(context: Context) -> None:
    """Whole steps, generation included, all completions in one pass."""
    settings, figures = settings_of(context), context.figures
    policy = loaded_policy(context)
    sizes = counted(policy)
    trainer = grpo_trainer(context, policy, settings, clips_of(context, MOST))
    rows = [
        {"prompt": policy.processor.build_messages(), "clip": f"{DATASET}/{number:05d}"}
        for number in range(MOST)
    ]

    def run(prompts: int) -> dict[str, Any]:
        torch.cuda.reset_peak_memory_stats()
        watch, _ = step(trainer, rows[:prompts])
        grpo = settings.grpo.model_copy(update={"prompts_per_step": prompts})
        estimate = fit.grpo_memory(settings.model_copy(update={"grpo": grpo}), sizes)
        return {
            "seconds": round(sum(watch.wall.values()), 2),
            "peak_reserved_gb": round(peaks_now()[1], 2),
            "estimated_gb": round(estimate.total / 1e9, 2),
        }

    def after_failure() -> None:
        trainer.model.zero_grad()
        torch.cuda.empty_cache()

    with frozen_half(context, trainer, settings):
        found = double(run, after_failure, MOST, figures)
    if not found:
        figures.fail("not even a step of one clip fits")
    figures.say(f"{found} clips, {found * GROUP} completions in one pass")


def double(
    run: Callable[[int], dict[str, Any]], after_failure: Callable[[], None], most: int, figures: Figures
) -> int:
    """The last number of 1, 2, 4, ... up to `most` that runs; each is written down at once.

    Args:
        run: runs a step of this many clips and returns its figures.
        after_failure: called once if memory is out.
        most: where to stop.
        figures: gets `batches`, by number of clips, and `out_of_memory_at` if something didn't fit.
    """
    fits, clips, batches = 0, 1, {}
    while clips <= most:
        try:
            batches[str(clips)] = run(clips)
        except OutOfMemory:
            after_failure()
            figures.add(out_of_memory_at=clips)
            break
        fits = clips
        figures.add(batches=dict(batches), largest_clips=fits, largest_completions=fits * GROUP)
        clips *= 2
    return fits
