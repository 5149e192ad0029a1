"""Cold start: supervised fine-tuning on explained clips.

The towers are frozen and run once per clip. Projectors, gate and language model learn to write the target
completion; only the assistant's turn counts for the loss. The gate's text encoder stays frozen, as in the
released code. With LoRA only the language model's adapters learn.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from erv.determinism import seed_everything
from erv.errors import TrainingError
from erv.manifest import ClipRow
from erv.policies import Policy
from erv.settings import MachineSettings, RuntimeSettings, SftSettings
from erv.shards import ShardReader
from erv.training.common.collate import Example, completion_ids
from erv.training.common.fine_tuning import Course, fine_tune, shuffled_passes
from erv.training.common.throughput import OnMetrics

logger = logging.getLogger(__name__)


def build_examples(
    policy: Policy,
    rows: Sequence[ClipRow],
    shards: Mapping[str, ShardReader],
    labels: Sequence[str] = (),
) -> dict[str, list[Example]]:
    """Turns manifest rows into examples by split, sorted by clip; the policy's prompt may list `labels`.

    Clips that are not in the shards are in quarantine; the log says how many there are.

    Raises:
        TrainingError: a row has no completion, or there is no clip left to train on.
    """
    examples: dict[str, list[Example]] = {"train": [], "validation": []}
    absent = 0

    @functools.cache  # most clips are asked the same
    def prompt(subtitle: str | None, sound: bool) -> list[int]:
        asked = policy.processor.prompt.ask(labels, subtitle)
        ids: list[int] = policy.processor.prompt_ids(asked, audio=sound)
        return ids

    for row in sorted(rows, key=lambda row: (row.dataset, row.clip_id)):
        if row.split not in examples:
            continue
        if row.completion is None:
            raise TrainingError(
                f"clip {row.clip_id} of {row.dataset} has no completion to learn from; name a reasoning set"
                " as roles.cold_start, or take a base that explains already as it is (sft.max_steps: 0)"
            )
        reader = shards[row.dataset]
        if row.clip_id not in reader:
            absent += 1
            continue
        examples[row.split].append(
            Example(
                key=f"{row.dataset}/{row.clip_id}",
                prompt=prompt(row.subtitle, row.clip_id not in reader.silent),
                completion=completion_ids(policy, row.completion),
            )
        )
    counts = ", ".join(f"{len(found)} {split}" for split, found in examples.items())
    logger.info("sft: %s clips, %d more are in quarantine", counts, absent)
    if not examples["train"]:
        tables = " and ".join(f"data/quarantine/{name}.parquet" for name in sorted(shards))
        raise TrainingError(f"sft: no training clip is left; see {tables} for the reasons")
    return examples


def train_sft(
    policy: Policy,
    rows: Sequence[ClipRow],
    shards: Mapping[str, ShardReader],
    settings: SftSettings,
    *,
    checkpoints: Path,
    on_metrics: OnMetrics,
    seed: int,
    runtime: RuntimeSettings,
    machine: MachineSettings,
    output: Path | None = None,
    labels: Sequence[str] = (),
) -> Policy:
    """Fine-tunes a policy in place; resumes from the newest complete checkpoint.

    Args:
        policy: the base checkpoint, on the CPU.
        rows: the manifest; splits `train` and `validation` are used.
        shards: decoded clips by data set name.
        settings: the section `sft`.
        checkpoints: folder outside the outputs, owned by exactly these inputs (see `erv.checkpoints`).
        on_metrics: see `fine_tune`.
        seed: seed for the order of examples, adapters and dropout.
        runtime: device, precision, threads.
        machine: memory of features, clips in a pass, checkpoints.
        output: policy folder to write, see `fine_tune`.
        labels: the emotions of the data set, for a prompt that lists them.

    Returns:
        The same policy, trained, in evaluation mode.

    Raises:
        TrainingError: there is no clip to train on, or see `fine_tune`.
    """
    seed_everything(seed, runtime.threads)
    examples = build_examples(policy, rows, shards, labels)
    steps = total_steps(settings, len(examples["train"]))
    course = Course(
        name="sft",
        train=examples["train"],
        order=shuffled_passes(len(examples["train"]), steps * settings.batch_size, seed),
        validation=examples["validation"],
    )
    return fine_tune(
        policy,
        course,
        shards,
        settings,
        checkpoints=checkpoints,
        on_metrics=on_metrics,
        seed=seed,
        runtime=runtime,
        machine=machine,
        rows_per_pass=machine.sft.rows_per_pass,
        save_steps=machine.sft.save_steps,
        output=output,
    )


def total_steps(settings: SftSettings, clips: int) -> int:
    """Optimiser steps of a run: `max_steps` if it is set, otherwise as many as `epochs` need."""
    if settings.max_steps is not None:
        return settings.max_steps
    assert settings.epochs is not None
    return settings.epochs * math.ceil(clips / settings.batch_size)
