"""Cold start: supervised fine-tuning on explained clips.

The towers are frozen and run once per clip. Projectors, gate and language model learn to write the target
completion; the loss is on the assistant's turn alone. The gate's text encoder stays frozen, as in the
released code.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from torch.utils.data import Dataset, SequentialSampler
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from erv.checkpoints import discard_incomplete, keep_newest, latest_checkpoint, mark_complete
from erv.data.manifest import ClipRow
from erv.determinism import resolve_device, seed_everything
from erv.errors import TrainingError
from erv.policies import Policy
from erv.policy_settings import SftSettings
from erv.settings import RuntimeSettings
from erv.shards import ShardReader
from erv.training.clip_features import ClipFeatures, policy_encoder

logger = logging.getLogger(__name__)

OnMetrics = Callable[[dict[str, float], int], None]

_IGNORED = -100
_LOG_STEPS = 10
_VALIDATION_BATCH = 32


@dataclass(frozen=True)
class Example:
    """A clip and what shall be said about it.

    Attributes:
        key: `<data set>/<clip id>`.
        prompt: token ids up to where the completion begins.
        completion: token ids of the target, end token included.
    """

    key: str
    prompt: list[int]
    completion: list[int]


def build_examples(
    policy: Policy, rows: Sequence[ClipRow], shards: Mapping[str, ShardReader]
) -> dict[str, list[Example]]:
    """Turns manifest rows into examples by split, sorted by clip.

    Clips that are not in the shards are in quarantine; the log says how many.

    Raises:
        TrainingError: a row has no completion, or no clip is left to train on.
    """
    tokenizer = policy.processor.tokenizer
    prompts = {sound: policy.processor.prompt_ids(audio=sound) for sound in (True, False)}
    examples: dict[str, list[Example]] = {"train": [], "validation": []}
    absent = 0
    for row in sorted(rows, key=lambda row: (row.dataset, row.clip_id)):
        if row.split not in examples:
            continue
        if row.completion is None:
            raise TrainingError(f"clip {row.clip_id} of {row.dataset} has no completion to learn from")
        reader = shards[row.dataset]
        if row.clip_id not in reader:
            absent += 1
            continue
        completion = [*tokenizer(row.completion)["input_ids"], tokenizer.eos_token_id]
        prompt = prompts[row.clip_id not in reader.silent]
        examples[row.split].append(Example(f"{row.dataset}/{row.clip_id}", prompt, completion))
    counts = ", ".join(f"{len(found)} {split}" for split, found in examples.items())
    logger.info("sft: %s clips, %d more are in quarantine", counts, absent)
    if not examples["train"]:
        raise TrainingError(
            "sft: no training clip is left; see data/quarantine/reasoning.parquet for the reasons"
        )
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
) -> Policy:
    """Fine-tunes a policy in place; resumes from the newest complete checkpoint.

    Args:
        policy: the base checkpoint.
        rows: the manifest; splits `train` and `validation` are used.
        shards: decoded clips by data set name.
        settings: the section `sft`.
        checkpoints: folder outside the outputs, owned by exactly these inputs (see `erv.checkpoints`).
        on_metrics: called with `loss`, `learning_rate`, `grad_norm`, `validation_loss` and the step, from 1.
        seed: of the order.
        runtime: device, precision, threads.

    Returns:
        The same policy, trained, in evaluation mode.

    Raises:
        TrainingError: no clip to train on, or a loss that is not finite.
    """
    seed_everything(seed, runtime.threads)
    policy.model.to(resolve_device(runtime.device))
    policy.model.freeze_question_encoder()
    examples = build_examples(policy, rows, shards)
    features = ClipFeatures(policy_encoder(policy), shards)
    steps = total_steps(settings, len(examples["train"]))
    order = _order(len(examples["train"]), steps * settings.batch_size, seed)
    checkpoints.mkdir(parents=True, exist_ok=True)
    discard_incomplete(checkpoints)

    trainer = _SftTrainer(
        model=policy.model,
        args=_arguments(settings, steps, checkpoints, seed, runtime),
        train_dataset=_Ordered(examples["train"], order),
        data_collator=lambda batch: collate(policy, batch, features),
    )
    trainer.remove_callback(PrinterCallback)
    watcher = _Watcher(
        on_metrics, settings.save_steps, lambda: validation_loss(policy, examples["validation"], features)
    )
    trainer.add_callback(watcher)
    newest = latest_checkpoint(checkpoints)
    if newest is not None:
        logger.info("sft: resuming from %s", newest.name)
    trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    policy.model.requires_grad_(True)
    policy.model.freeze_towers()
    policy.model.eval()
    return policy


def total_steps(settings: SftSettings, clips: int) -> int:
    """Optimiser steps of a run: as many as the settings say, or as their epochs take."""
    if settings.max_steps is not None:
        return settings.max_steps
    assert settings.epochs is not None
    return settings.epochs * math.ceil(clips / settings.batch_size)


def collate(policy: Policy, batch: Sequence[Example], features: ClipFeatures) -> dict[str, torch.Tensor]:
    """A batch padded on the right; labels cover completions alone.

    Returns:
        `input_ids`, `attention_mask`, `labels` long [rows, length]; `clip_index` long [rows]; the features of
        each distinct clip once; the gate's inputs.
    """
    pad = policy.processor.tokenizer.pad_token_id
    length = max(len(item.prompt) + len(item.completion) for item in batch)
    ids, mask, labels = [], [], []
    for item in batch:
        used = len(item.prompt) + len(item.completion)
        rest = length - used
        ids.append([*item.prompt, *item.completion, *[pad] * rest])
        mask.append([1] * used + [0] * rest)
        labels.append([_IGNORED] * len(item.prompt) + item.completion + [_IGNORED] * rest)
    keys = list(dict.fromkeys(item.key for item in batch))
    return {
        "input_ids": torch.tensor(ids),
        "attention_mask": torch.tensor(mask),
        "labels": torch.tensor(labels),
        "clip_index": torch.tensor([keys.index(item.key) for item in batch]),
        **features(keys),
        **policy.processor.question_inputs(),
    }


def completion_loss(model: Any, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, int]:
    """Mean cross entropy of the labelled tokens, and how many there are; the head runs on these alone."""
    inputs = dict(inputs)
    labels = inputs.pop("labels")[:, 1:]
    hidden = model.base_model(**inputs, use_cache=False).last_hidden_state[:, :-1]
    kept = labels != _IGNORED
    logits = model.get_output_embeddings()(hidden[kept]).float()
    return functional.cross_entropy(logits, labels[kept]), int(kept.sum())


@torch.no_grad()
def validation_loss(policy: Policy, examples: Sequence[Example], features: ClipFeatures) -> float | None:
    """Mean loss per token on held-out clips, or None without any."""
    if not examples:
        return None
    total, tokens = 0.0, 0
    training = policy.model.training
    policy.model.eval()
    for start in range(0, len(examples), _VALIDATION_BATCH):
        batch = collate(policy, examples[start : start + _VALIDATION_BATCH], features)
        loss, count = completion_loss(policy.model, {k: v.to(policy.device) for k, v in batch.items()})
        total, tokens = total + loss.item() * count, tokens + count
    policy.model.train(training)
    return total / tokens


class _Ordered(Dataset[Example]):
    """Examples in an order laid out beforehand: the position in it is all that a resumed run must know."""

    def __init__(self, examples: Sequence[Example], order: Sequence[int]) -> None:
        self._examples, self._order = examples, order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, position: int) -> Example:
        return self._examples[self._order[position]]


def _order(examples: int, count: int, seed: int) -> list[int]:
    """`count` positions: one shuffled pass after the other."""
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    while len(order) < count:
        order += torch.randperm(examples, generator=generator).tolist()
    return order[:count]


class _SftTrainer(Trainer):
    """The stock loop with our order and our loss."""

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)

    def compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool = False, **kwargs: Any
    ) -> torch.Tensor:
        loss, _ = completion_loss(self.accelerator.unwrap_model(model), inputs)
        if not math.isfinite(loss.item()):
            raise TrainingError(
                f"sft: the loss is {loss.item()} at step {self.state.global_step + 1};"
                f" lower sft.learning_rate ({self.args.learning_rate})"
                f" or sft.max_grad_norm ({self.args.max_grad_norm})"
            )
        return loss


class _Watcher(TrainerCallback):
    """Reports metrics, measures on held-out clips, and marks checkpoints as whole once they are."""

    def __init__(self, on_metrics: OnMetrics, save_steps: int, validate: Callable[[], float | None]) -> None:
        self._on_metrics, self._save_steps, self._validate = on_metrics, save_steps, validate
        self._started = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        step = state.global_step
        if step % self._save_steps == 0 or step == state.max_steps:
            loss = self._validate()
            if loss is not None:
                self._on_metrics({"validation_loss": loss}, step)
                logger.info("sft: step %d, validation loss %.3f", step, loss)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        metrics = {name: float(value) for name, value in (logs or {}).items() if name in _METRICS}
        if "loss" not in metrics:
            return
        self._on_metrics(metrics, state.global_step)
        if state.global_step % (5 * _LOG_STEPS) == 0:
            seconds = time.monotonic() - self._started
            logger.info(
                "sft: step %d of %d, loss %.3f, %.0f s",
                state.global_step,
                state.max_steps,
                metrics["loss"],
                seconds,
            )

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        folder = Path(str(args.output_dir))
        mark_complete(folder / f"checkpoint-{state.global_step}")
        keep_newest(folder, 2)


_METRICS = ("loss", "learning_rate", "grad_norm")


def _arguments(
    settings: SftSettings, steps: int, checkpoints: Path, seed: int, runtime: RuntimeSettings
) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=round(settings.warmup_share * steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        save_strategy="steps",
        save_steps=settings.save_steps,
        logging_steps=_LOG_STEPS,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        use_cpu=resolve_device(runtime.device).type == "cpu",
        bf16=runtime.dtype == "bfloat16",
        fp16=runtime.dtype == "float16",
        seed=seed,
    )
