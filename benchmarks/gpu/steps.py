"""Steps of sft and grpo as the stages take them: time, tokens per second, utilisation, peak memory.

Utilisation (MFU) is the operations that the update needs, divided by its seconds and by the device's peak for
dense bfloat16 products (`benchmarks.grpo_flops`): what is computed again under checkpointing doesn't count,
nor do towers and projectors. grpo's update is the scoring by the policy and its backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from statistics import median
from typing import Any

import torch

from benchmarks.gpu.figures import Context
from benchmarks.gpu.policies import (
    GROUP,
    clips_of,
    counted,
    loaded_policy,
    peak,
    peaks_now,
    policy_of,
    settings_of,
)
from benchmarks.grpo_flops import Language, Work, peak_of
from benchmarks.grpo_measured import PARTS, MeasuredTrainer
from benchmarks.grpo_sizes import DATASET
from benchmarks.grpo_ways import make_trainer, step
from benchmarks.grpo_worker import prompts_of, seconds_of
from erv.determinism import resolve_dtype
from erv.doctor import fit
from erv.policies import Policy
from erv.settings import Settings
from erv.shards import ShardReader
from erv.training.common.collate import Example
from erv.training.common.fine_tuning import Course, fine_tune
from erv.training.common.half_precision import frozen_linears_in
from erv.training.common.sft_trainer import LOG_STEPS


def grpo(context: Context) -> None:
    """Steps with the growing cache and with the static one, which on a GPU is a CUDA graph."""
    settings, figures = settings_of(context), context.figures
    prompts, completion = settings.grpo.prompts_per_step, settings.grpo.max_completion_length
    turns = context.rounds + 1
    clips = clips_of(context, 2 * prompts * turns)
    policy = loaded_policy(context)
    sizes, language = counted(policy), Language.of(policy.model)
    prompt = len(policy.processor.prompt_ids())
    work = Work.of(prompts, GROUP, prompt, completion, shared=True)
    figures.add(prompt_tokens=prompt, completion_tokens=completion, completions=prompts * GROUP)
    figures.add(adapters=context.adapters, dtype=context.dtype)
    trainer = grpo_trainer(context, policy, settings, clips)
    if context.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    found: dict[str, Any] = {}
    with frozen_half(context, trainer, settings):
        for number, static in enumerate((False, True)):
            trainer.static_decode = static
            seconds = []
            for turn in range(turns):
                rows = prompts_of(trainer, number * turns + turn, prompts)
                watch, _ = step(trainer, rows)
                if turn:
                    seconds.append(seconds_of(watch, context.device))
            name = "static cache" if static else "growing cache"
            found[name] = _summary(seconds, work, language, context, prompts * GROUP * completion)
            figures.add(**{name: found[name]})
    if context.on_gpu:
        figures.add(**peak(fit.grpo_memory(settings, sizes), *peaks_now()))
    figures.say("; ".join(f"{name}: {_line(row)}" for name, row in found.items()) + _memory(figures.values))


def sft(context: Context) -> None:
    """Twenty steps of fine-tuning; those after the first ten count."""
    settings, figures = settings_of(context), context.figures
    steps, rows = 2 * LOG_STEPS, settings.sft.batch_size
    policy, reader = policy_of(context), clips_of(context, rows)
    prompt, completion = policy.processor.prompt_ids(), settings.grpo.max_completion_length
    sizes, language = counted(policy), Language.of(policy.model)
    never = {*policy.model.placeholder_ids}
    words = [token for token in range(len(policy.processor.tokenizer)) if token not in never]
    draw = torch.Generator().manual_seed(0)
    examples = []
    for key in reader.clip_ids:
        places = torch.randint(len(words), (completion,), generator=draw).tolist()
        examples.append(
            Example(key=f"{DATASET}/{key}", prompt=prompt, completion=[words[place] for place in places])
        )
    found: dict[str, float] = {}

    def note(metrics: dict[str, float], number: int) -> None:
        found.update(metrics)
        if number == steps and "trained_tokens_per_second" in metrics:
            raise _Enough  # before a checkpoint is written

    course = Course(name="sft", train=examples, order=list(range(rows)) * steps)
    with suppress(_Enough):
        fine_tune(
            policy,
            course,
            {DATASET: reader},
            settings.sft,
            checkpoints=context.folder / "checkpoints",
            on_metrics=note,
            seed=0,
            runtime=settings.runtime,
            machine=settings.machine,
            rows_per_pass=None,
            save_steps=10 * steps,
        )
    length = len(prompt) + completion
    seconds = rows * length / found["trained_tokens_per_second"]
    work = Work(rows * length, rows * completion, rows * length * (length + 1) // 2)
    row = {
        "step_seconds": round(seconds, 4),
        "trained_tokens_per_second": round(found["trained_tokens_per_second"], 1),
        **_utilisation(language.update(work, frozen=context.adapters), seconds, context),
    }
    figures.add(rows=rows, prompt_tokens=len(prompt), completion_tokens=completion, **row)
    figures.add(adapters=context.adapters, dtype=context.dtype)
    if context.on_gpu:
        peaks = found["gpu_memory_gb"], found["gpu_memory_reserved_gb"]  # of the steps that count
        figures.add(**peak(fit.sft_memory(settings, sizes), *peaks))
    figures.say(_line(row) + _memory(figures.values))


class _Enough(Exception):
    """Ends a training that has been measured."""


def grpo_trainer(
    context: Context, policy: Policy, settings: Settings, reader: ShardReader
) -> MeasuredTrainer:
    """The stage's trainer with a stopwatch around its parts; each step takes clips of its own."""
    steps = len(reader.clip_ids) // settings.grpo.prompts_per_step
    grpo = settings.grpo.model_copy(update={"max_steps": steps})
    output = context.folder / "checkpoints"
    return make_trainer("erv", policy, {DATASET: reader}, grpo, settings.runtime, output)


@contextmanager
def frozen_half(context: Context, trainer: MeasuredTrainer, settings: Settings) -> Iterator[None]:
    """Within, frozen matrices are held in half precision, as the stage holds them."""
    dtype = resolve_dtype(context.dtype, context.device)
    models: list[Any] = [trainer.model] if settings.grpo.lora.enabled else []
    if trainer.ref_model is not None:
        models.append(trainer.ref_model.requires_grad_(False))
    with frozen_linears_in(dtype, models):
        yield


def _summary(
    turns: list[dict[str, Any]], work: Work, language: Language, context: Context, written: int
) -> dict[str, Any]:
    """Medians over the steps: seconds by part, tokens per second, utilisation."""
    clock = "wall" if context.on_gpu else "cpu"
    parts = {part: median(turn["parts"][part] for turn in turns) for part in PARTS}
    update = parts["policy scoring"] + parts["backward"]
    operations = language.update(work, frozen=context.adapters)
    return {
        "step_seconds": round(median(turn[clock] for turn in turns), 4),
        "part_seconds": {part: round(value, 4) for part, value in parts.items()},
        "generated_tokens_per_second": round(written / parts["generation"], 1),
        "trained_tokens_per_second": round(work.tokens / update, 1),
        **_utilisation(operations, update, context),
    }


def _utilisation(operations: int, seconds: float, context: Context) -> dict[str, Any]:
    """Operations per second and their share of the peak, with the formula in numbers."""
    speed = operations / seconds / 1e12
    most = peak_of(torch.cuda.get_device_name()) if context.on_gpu else None
    return {
        "update_operations": operations,
        "tflops": round(speed, 3),
        "peak_tflops": most,
        "mfu": None if most is None else round(speed / most, 4),
    }


def _line(row: dict[str, Any]) -> str:
    speeds = [f"{row['step_seconds']:.2f} s a step"]
    if "generated_tokens_per_second" in row:
        speeds.append(f"{row['generated_tokens_per_second']:,.0f} tokens/s generated")
    speeds.append(f"{row['trained_tokens_per_second']:,.0f} trained")
    if row["mfu"] is not None:
        speeds.append(f"MFU {row['mfu']:.1%}")
    return ", ".join(speeds)


def _memory(figures: dict[str, Any]) -> str:
    if "peak_reserved_gb" not in figures:
        return ""
    return f"; peak {figures['peak_reserved_gb']} GB, estimate {figures['estimated_gb']}"
