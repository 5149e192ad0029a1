"""Fine-tuning of policies that see and hear, on the seams of TRL's `SFTTrainer` (1.16).

TRL's data preparation knows text and images only, so examples come prepared (`skip_prepare_dataset`) and
`erv.training.collate` makes the batches, packed ones too. What is overridden, and why:

- `compute_loss`: one process on a CPU takes the plain cross entropy of the labelled tokens. TRL's own path
  runs the head tile by tile, whose sums differ in the last bits, and published figures hang on these. TRL's
  is taken on a GPU, where the logits of a large vocabulary must not stand in memory at once, and in several
  processes, where the loss must go through the wrapper that gathers gradients. Both divide by the labelled
  tokens of the whole update (`num_items_in_batch`): passes and processes don't change what is learned. A loss
  that is not finite stops training;
- `_save_checkpoint` writes the completion record and leaves the pickled arguments out;
- `create_model_card` writes and `_send_telemetry` sends nothing.

All examples are laid out in order beforehand and taken one after the other. Several processes take the
batches in turn, so that an update sees the same examples whatever their number.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.nn import functional
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTConfig, SFTTrainer

from erv.checkpoints import PREFIX, discard_incomplete, keep_newest, latest_checkpoint, mark_complete
from erv.determinism import resolve_device, resolve_dtype
from erv.errors import TrainingError
from erv.policies import Policy
from erv.policy_settings import SftSettings
from erv.settings import RuntimeSettings
from erv.shards import ShardReader
from erv.training.adapters import (
    ADAPTER,
    four_bit_copy,
    lora_config,
    merge_adapter,
    write_adapter,
    write_policy,
)
from erv.training.clip_features import ClipFeatures, policy_encoder
from erv.training.collate import Collator, Example, check_packing, completion_logits, completion_loss

logger = logging.getLogger(__name__)

OnMetrics = Callable[[dict[str, float], int], None]

_KEPT_CHECKPOINTS = 2
_LOG_STEPS = 10
_VALIDATION_BATCH = 32
# TRL's names on the left, ours on the right.
_METRICS = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "mean_token_accuracy": "token_accuracy",
    "entropy": "entropy",
}


@dataclass(frozen=True)
class Course:
    """What is learned in a run of fine-tuning.

    Attributes:
        name: of the stage, whose section of the parameters messages name.
        train: the examples.
        order: positions in `train`, `batch_size` after the other for each optimiser step.
        validation: held-out examples; may be empty.
        schedule: of the learning rate, a name that `transformers` knows.
        freeze_projectors: train the language model alone.
    """

    name: str
    train: Sequence[Example]
    order: Sequence[int]
    validation: Sequence[Example] = ()
    schedule: str = "cosine"
    freeze_projectors: bool = False


def shuffled_passes(examples: int, count: int, seed: int) -> list[int]:
    """`count` positions: one shuffled pass after the other."""
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
    output: Path | None = None,
) -> Policy:
    """Trains a policy in place; resumes from the newest complete checkpoint.

    In several processes each of them calls this; the first alone reports and writes.

    Args:
        policy: what is trained, on the CPU.
        course: what it learns.
        shards: decoded clips by data set name.
        settings: how it learns; what decides the length is in `course`.
        checkpoints: folder outside the outputs, owned by exactly these inputs (see `erv.checkpoints`).
        on_metrics: called with `loss`, `learning_rate`, `grad_norm`, `token_accuracy`, `entropy`,
            `validation_loss` and the step, from 1.
        seed: of adapters and dropout.
        runtime: device, precision, threads.
        output: policy folder to write; with LoRA it also holds `adapter/`, already merged into the weights.

    Returns:
        The policy, trained, in evaluation mode.

    Raises:
        TrainingError: settings that don't fit the machine or the policy, or a loss that is not finite.
    """
    device = resolve_device(runtime.device)
    dtype = resolve_dtype(runtime.dtype, device)  # half precision is autocast; a CPU refuses it
    arguments = _arguments(course, settings, checkpoints, seed, runtime)
    if arguments.n_gpu > 1:
        raise TrainingError(
            f"{course.name}: {arguments.n_gpu} GPUs are visible to one process; set runtime.accelerate and"
            " runtime.processes to use them, or CUDA_VISIBLE_DEVICES to use one"
        )
    lora = settings.lora
    trained = policy
    if lora.enabled and lora.quantize != "none":
        trained = four_bit_copy(policy, lora, arguments.device, dtype)
    else:
        policy.model.to(arguments.device)
    trained.model.freeze_question_encoder()
    if course.freeze_projectors:
        trained.model.freeze_projectors()
    features = ClipFeatures(policy_encoder(trained), shards)
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
    trainer.remove_callback(PrinterCallback)
    validation = Collator(trained, features)
    trainer.add_callback(
        _Watcher(
            course.name,
            on_metrics,
            settings.save_steps,
            lambda: trainer.mean_loss(course.validation, validation),
        )
    )
    if trainer.is_world_process_zero():
        checkpoints.mkdir(parents=True, exist_ok=True)
        discard_incomplete(checkpoints)
    trainer.accelerator.wait_for_everyone()
    newest = latest_checkpoint(checkpoints)
    if newest is not None:
        logger.info("%s: resuming from %s", course.name, newest.name)
    trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    return _finish(trainer, policy, settings, checkpoints, output)


def _finish(
    trainer: OmniSFTTrainer, policy: Policy, settings: SftSettings, checkpoints: Path, output: Path | None
) -> Policy:
    """Adds what adapters have learned to the weights, and writes the policy."""
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if trainer.is_sharded else None
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
        write_policy(policy, output, state=state, adapter=adapter)
    trainer.accelerator.wait_for_everyone()
    return policy


class OmniSFTTrainer(SFTTrainer):
    """`trl.SFTTrainer` for batches of a `Collator`; see the module for what is overridden and why."""

    loss_is_scaled_for_ga = True  # `compute_loss` divides by the tokens of the whole update

    def __init__(self, *args: Any, stage: str, **kwargs: Any) -> None:
        """Takes what `trl.SFTTrainer` takes, and `stage`, its name in messages."""
        self._stage = stage
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = True  # else `Trainer` doesn't count the tokens of an update
        self._plain = self.accelerator.num_processes == 1 and self.accelerator.device.type == "cpu"
        if self.is_sharded and kwargs.get("peft_config") is not None:
            raise TrainingError(
                f"{stage}: adapters can't be merged into weights that lie in shards; set runtime.accelerate"
                " to ddp, or lora.enabled to false"
            )

    @property
    def is_sharded(self) -> bool:
        """Whether a process may hold a part of the weights only."""
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> torch.Tensor:
        """Cross entropy of the labelled tokens of this pass, over the number of those of the whole update.

        Raises:
            TrainingError: it is not finite.
        """
        if self._plain:
            loss = self._plain_loss(model, inputs, num_items_in_batch)
        else:
            loss = super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
        if not math.isfinite(loss.item()):
            raise TrainingError(
                f"{self._stage}: the loss is {loss.item()} at step {self.state.global_step + 1};"
                f" lower {self._stage}.learning_rate ({self.args.learning_rate})"
            )
        return loss

    def _plain_loss(self, model: Any, inputs: dict[str, Any], num_items: Any) -> torch.Tensor:
        """The loss from whole logits, and TRL's metrics from them."""
        logits, tokens = completion_logits(self.accelerator.unwrap_model(model), inputs)
        with torch.no_grad():
            log_probs = logits.log_softmax(dim=-1)
            entropy = -(log_probs.exp() * log_probs).sum(dim=-1).mean()
            accuracy = (logits.argmax(dim=-1) == tokens).float().mean()
        self._metrics["train"]["entropy"].append(entropy.item())
        self._metrics["train"]["mean_token_accuracy"].append(accuracy.item())
        return functional.cross_entropy(logits, tokens, reduction="sum") / num_items

    @torch.no_grad()
    def mean_loss(self, examples: Sequence[Example], collate: Collator) -> float | None:
        """Mean loss per token on held-out examples, or None without any; each process computes all of it."""
        if not examples:
            return None
        total, tokens = 0.0, 0
        training = self.model.training
        self.model.eval()
        for start in range(0, len(examples), _VALIDATION_BATCH):
            batch = collate(examples[start : start + _VALIDATION_BATCH])
            inputs = {name: value.to(self.accelerator.device) for name, value in batch.items()}
            if self._plain:
                loss, count = completion_loss(self.model, inputs)
                total, tokens = total + loss.item(), tokens + count
            else:
                outputs = self.model_wrapped(**inputs, fused_lm_head=True)
                total -= outputs.log_probs.sum().item()
                tokens += int(outputs.label_mask.sum())
        self.model.train(training)
        return total / tokens

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # each process has a random state of its own to save
        if self.is_world_process_zero():
            folder = Path(str(self.args.output_dir))
            checkpoint = folder / f"{PREFIX}{self.state.global_step}"
            (checkpoint / "training_args.bin").unlink(missing_ok=True)  # a pickle that nothing reads
            mark_complete(checkpoint)
            keep_newest(folder, _KEPT_CHECKPOINTS)
        self.accelerator.wait_for_everyone()

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Writes nothing: the card belongs to the registered bundle."""

    def _send_telemetry(self) -> None:
        """Sends nothing."""


class _Watcher(TrainerCallback):
    """Measures on held-out clips, and reports metrics from the first process."""

    def __init__(
        self, stage: str, on_metrics: OnMetrics, save_steps: int, validate: Callable[[], float | None]
    ) -> None:
        self._stage = stage
        self._on_metrics, self._save_steps, self._validate = on_metrics, save_steps, validate
        self._started = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        step = state.global_step
        if step % self._save_steps == 0 or step == state.max_steps:
            loss = self._validate()  # in every process: a sharded model runs in all of them or in none
            if loss is not None and state.is_world_process_zero:
                self._on_metrics({"validation_loss": loss}, step)
                logger.info("%s: step %d, validation loss %.3f", self._stage, step, loss)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if not logs or "loss" not in logs or not state.is_world_process_zero:
            return
        metrics = {ours: float(logs[theirs]) for theirs, ours in _METRICS.items() if theirs in logs}
        self._on_metrics(metrics, state.global_step)
        if state.global_step % (5 * _LOG_STEPS) == 0:
            seconds = time.monotonic() - self._started
            logger.info(
                "%s: step %d of %d, loss %.3f, %.0f s",
                self._stage,
                state.global_step,
                state.max_steps,
                metrics["loss"],
                seconds,
            )


def _arguments(
    course: Course, settings: SftSettings, checkpoints: Path, seed: int, runtime: RuntimeSettings
) -> SFTConfig:
    """TRL's configuration, with everything said that decides the result: its defaults are others."""
    steps = len(course.order) // settings.batch_size
    rows, passes = _passes(course.name, settings)
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
        activation_checkpointing=settings.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        activation_offloading=False,
        loss_type="nll",
        completion_only_loss=True,
        packing=False,  # the collator packs
        padding_free=False,
        max_length=None,
        shuffle_dataset=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        ddp_find_unused_parameters=True,  # clips without sound leave its projector out
        save_strategy="steps",
        save_steps=settings.save_steps,
        logging_steps=_LOG_STEPS,
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


def _passes(stage: str, settings: SftSettings) -> tuple[int, int]:
    """Rows that a process takes at once, and how often it does so for one update.

    Raises:
        TrainingError: the batch can't be divided so.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))  # as torchrun and accelerate launch say it
    rows = settings.rows_per_pass or max(1, settings.batch_size // processes)
    if settings.batch_size % (rows * processes):
        raise TrainingError(
            f"{stage}: a batch of {settings.batch_size} can't be divided among {processes} processes with"
            f" {rows} rows in a pass; change runtime.processes, batch_size or rows_per_pass"
        )
    return rows, settings.batch_size // (rows * processes)
