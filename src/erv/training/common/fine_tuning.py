"""A fine-tuning run, from examples to a policy folder; shared by `sft` and rejection sampling."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl import SFTConfig

from erv.checkpoints import discard_unusable, latest_checkpoint
from erv.determinism import resolve_device, resolve_dtype
from erv.errors import TrainingError
from erv.policies import Policy
from erv.policies.common.policy import ADAPTER
from erv.settings import MachineSettings, RuntimeSettings, SftSettings
from erv.shards import ShardReader
from erv.tracking.ran import note_trained
from erv.training.common.adapters import (
    is_sharded,
    lora_config,
    merge_adapter,
    prepare_for_lora,
    refuse_sharded_adapters,
    without_dropout,
    write_adapter,
)
from erv.training.common.clip_features import ClipFeatures, policy_encoder
from erv.training.common.collate import Collator, Example, check_packing
from erv.training.common.half_precision import frozen_linears_in
from erv.training.common.ranks import is_main, one_gpu_each
from erv.training.common.recomputing import recomputing
from erv.training.common.sft_trainer import LOG_STEPS, OmniSFTTrainer, Reporter
from erv.training.common.special_tokens import special_tokens_kept
from erv.training.common.throughput import OnMetrics, Throughput

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Course:
    """What a fine-tuning run learns.

    Attributes:
        name: the stage's name; messages also use it to name the section of the parameters.
        train: the training examples.
        order: positions in `train`; each optimiser step takes the next `batch_size` of them.
        validation: held-out examples; may be empty.
        schedule: learning rate schedule, a name that `transformers` knows.
        freeze_projectors: whether to train only the language model.
        freeze_question_encoder: whether to freeze the encoder that reads the question besides the language
            model.
    """

    name: str
    train: Sequence[Example]
    order: Sequence[int]
    validation: Sequence[Example] = ()
    schedule: str = "cosine"
    freeze_projectors: bool = False
    freeze_question_encoder: bool = True


def shuffled_passes(examples: int, count: int, seed: int) -> list[int]:
    """`count` positions, one shuffled pass over the examples after another."""
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    while len(order) < count:
        order += torch.randperm(examples, generator=generator).tolist()
    return order[:count]


def fine_tune(
    policy: Policy,
    course: Course,
    shards: Mapping[str, ShardReader],
    settings: SftSettings,
    *,
    checkpoints: Path,
    on_metrics: OnMetrics,
    seed: int,
    runtime: RuntimeSettings,
    machine: MachineSettings,
    rows_per_pass: int | None,
    save_steps: int,
    output: Path | None = None,
) -> Policy:
    """Trains a policy in place; resumes from the newest complete checkpoint.

    With several processes each one calls this function; only the first reports and writes.

    Args:
        policy: the policy to train, on the CPU.
        course: what it learns.
        shards: decoded clips by data set name.
        settings: how it learns; `course` determines the number of steps.
        checkpoints: folder outside the outputs, owned by exactly these inputs (see `erv.checkpoints`).
        on_metrics: called with `loss`, `learning_rate`, `grad_norm`, `token_accuracy`, `entropy`,
            `validation_loss`, what `Throughput.read` returns, and the step, from 1.
        seed: seed for adapters and dropout.
        runtime: device, precision, threads.
        machine: memory of features.
        rows_per_pass: examples that a process puts through the model at once; None: its share of a batch.
        save_steps: steps between checkpoints; they change neither weights nor metrics.
        output: policy folder to write; with LoRA it also holds `adapter/`, already merged into the weights.

    Returns:
        The trained policy, in evaluation mode.

    Raises:
        TrainingError: settings don't fit the machine or the policy, or a loss is not finite.
    """
    device = resolve_device(runtime.device)
    dtype = resolve_dtype(runtime.dtype, device)  # half precision is autocast; a CPU refuses it
    arguments = _arguments(course, settings, checkpoints, seed, runtime, rows_per_pass, save_steps)
    one_gpu_each(course.name, arguments.n_gpu)
    lora = settings.lora
    trained = prepare_for_lora(policy, lora, arguments.device, dtype)
    without_dropout(trained.model)
    if course.freeze_question_encoder:
        trained.model.freeze_question_encoder()
    if course.freeze_projectors:
        trained.model.freeze_projectors()
    memory = round(machine.feature_cache_gb * 1e9)
    features = ClipFeatures(policy_encoder(trained, dtype), shards, memory_bytes=memory)
    if settings.packing:
        check_packing(trained, course.train, features)
    trainer = OmniSFTTrainer(
        model=trained.model,
        args=arguments,
        train_dataset=Dataset.from_list([dict(item) for item in course.train]).select(course.order),
        data_collator=Collator(trained, features, packing=settings.packing),
        processing_class=policy.processor.tokenizer,
        peft_config=lora_config(trained.model, lora) if lora.enabled else None,
        stage=course.name,
    )
    refuse_sharded_adapters(trainer, course.name, lora)
    note_trained(trainer.model.parameters())
    trainer.remove_callback(PrinterCallback)
    validation = Collator(trained, features)
    throughput = Throughput(arguments.device)
    trainer.add_callback(
        Reporter(
            course.name,
            on_metrics,
            lambda: trainer.mean_loss(course.validation, validation),
            throughput,
        )
    )
    checkpoints.mkdir(parents=True, exist_ok=True)
    if is_main():  # it hashes every checkpoint; the others wait
        discard_unusable(checkpoints)
    trainer.accelerator.wait_for_everyone()
    newest = latest_checkpoint(checkpoints)
    if newest is not None:
        logger.info("%s: resuming from %s", course.name, newest.name)
    frozen = [trainer.model] if lora.enabled else []
    with throughput, frozen_linears_in(dtype, frozen), special_tokens_kept(trained.model):
        trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    trainer.check_weights()
    return _finish(trainer, policy, settings, checkpoints, output)


def _finish(
    trainer: OmniSFTTrainer, policy: Policy, settings: SftSettings, checkpoints: Path, output: Path | None
) -> Policy:
    """Merges the adapters into the weights, and writes the policy."""
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if is_sharded(trainer) else None
    first = trainer.is_world_process_zero()
    adapter = None
    if settings.lora.enabled:
        model = trainer.accelerator.unwrap_model(trainer.model)
        adapter = checkpoints / ADAPTER
        if first:
            write_adapter(model, adapter)
        trainer.accelerator.wait_for_everyone()
        rounded = settings.lora.quantize != "none"
        policy.model = merge_adapter(policy.model, adapter) if rounded else model.merge_and_unload()
    policy.model.requires_grad_(True)
    policy.model.freeze_towers()
    policy.model.eval()
    if output is not None and first:
        policy.save(output, state=state, adapter=adapter)
    trainer.accelerator.wait_for_everyone()
    return policy


def _arguments(
    course: Course,
    settings: SftSettings,
    checkpoints: Path,
    seed: int,
    runtime: RuntimeSettings,
    rows_per_pass: int | None,
    save_steps: int,
) -> SFTConfig:
    """TRL's configuration. Everything that affects the result is explicit, because TRL's defaults differ."""
    steps = len(course.order) // settings.batch_size
    rows, passes = _passes(course.name, settings.batch_size, rows_per_pass)
    return SFTConfig(
        output_dir=str(checkpoints),
        max_steps=steps,
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=passes,
        average_tokens_across_devices=True,
        train_sampling_strategy="sequential",
        optim="adamw_torch_fused",
        learning_rate=settings.learning_rate,
        lr_scheduler_type=course.schedule,
        warmup_steps=round(settings.warmup_share * steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        **recomputing(settings.gradient_checkpointing, use_reentrant=False),
        activation_offloading=False,
        loss_type="nll",
        completion_only_loss=True,
        packing=False,  # the collator packs
        padding_free=False,
        max_length=None,
        shuffle_dataset=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        ddp_find_unused_parameters=True,  # clips without sound don't use the audio projector
        save_strategy="steps",
        save_steps=save_steps,
        logging_steps=LOG_STEPS,
        include_num_input_tokens_seen="non_padding",
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        use_cpu=resolve_device(runtime.device).type == "cpu",
        bf16=runtime.dtype == "bfloat16",
        fp16=runtime.dtype == "float16",
        seed=seed,
    )


def _passes(stage: str, batch: int, rows_per_pass: int | None) -> tuple[int, int]:
    """Rows that a process takes at once, and how often it does so for one update.

    Raises:
        TrainingError: the batch can't be divided that way.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))  # as torchrun and accelerate launch say it
    rows = rows_per_pass or max(1, batch // processes)
    if batch % (rows * processes):
        raise TrainingError(
            f"{stage}: a batch of {batch} can't be divided among {processes} processes with"
            f" {rows} rows in a pass; change machine.processes, machine.{stage}.rows_per_pass or the batch"
        )
    return rows, batch // (rows * processes)
