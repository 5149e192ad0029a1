"""Fine-tuning of policies that see and hear, as a subclass of TRL's `SFTTrainer` (1.16).

TRL's data preparation supports only text and images, so examples come prepared (`skip_prepare_dataset`) and
`erv.training.common.collate` makes the batches, including packed ones. What is overridden, and why:

- `compute_loss`: a single process on a CPU computes the plain cross entropy of the labelled tokens. TRL's own
  path runs the head tile by tile; its sums differ in the last bits, which would change published figures.
  TRL's path is used on a GPU, where the logits of a large vocabulary would not fit into memory at once, and
  with several processes, where the loss must go through the wrapper that gathers gradients. Both paths divide
  by the labelled tokens of the whole update (`num_items_in_batch`), so that the number of passes and
  processes doesn't change what is learned. A loss that is not finite stops training.
- `_save_checkpoint` writes the completion record and removes the pickled arguments.
- `create_model_card` and `_send_telemetry` do nothing.

The order of all examples is fixed beforehand. Several processes take turns at the batches, so that an update
sees the same examples whatever the number of processes.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTTrainer

from erv.checkpoints import PREFIX, keep_newest, mark_complete
from erv.errors import TrainingError
from erv.training.common.collate import Collator, Example, completion_logits, completion_loss
from erv.training.common.throughput import OnMetrics, Throughput

logger = logging.getLogger(__name__)

LOG_STEPS = 10
_VALIDATIONS = 4  # measurements of the validation loss, evenly spread over a training
_KEPT_CHECKPOINTS = 2
_VALIDATION_BATCH = 32
# TRL's names on the left, ours on the right.
_METRICS = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "mean_token_accuracy": "token_accuracy",
    "entropy": "entropy",
}


class OmniSFTTrainer(SFTTrainer):
    """`trl.SFTTrainer` for batches of a `Collator`; see the module for what is overridden and why."""

    # `loss_is_scaled_for_ga` stays None. Under transformers before 5.19, TRL turns True into a
    # `compute_loss_func` that is no function, and its own `compute_loss` calls it. None says the same where
    # the tokens of an update are counted.

    def __init__(self, *args: Any, stage: str, **kwargs: Any) -> None:
        """Takes the arguments of `trl.SFTTrainer`, and `stage`, the stage's name in messages."""
        self._stage = stage
        super().__init__(*args, **kwargs)
        # Otherwise `Trainer` doesn't count the tokens of an update, and divides the loss by its passes again.
        self.model_accepts_loss_kwargs = True
        self._plain = self.accelerator.num_processes == 1 and self.accelerator.device.type == "cpu"

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> torch.Tensor:
        """Summed cross entropy of this pass's labelled tokens, divided by their number in the whole update.

        Raises:
            TrainingError: the loss is not finite.
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
        """Computes the loss and TRL's metrics from all logits at once."""
        logits, tokens = completion_logits(self.accelerator.unwrap_model(model), inputs)
        with torch.no_grad():
            log_probs = logits.log_softmax(dim=-1)
            entropy = -(log_probs.exp() * log_probs).sum(dim=-1).mean()
            accuracy = (logits.argmax(dim=-1) == tokens).float().mean()
        self._metrics["train"]["entropy"].append(entropy.item())
        self._metrics["train"]["mean_token_accuracy"].append(accuracy.item())
        loss: torch.Tensor = functional.cross_entropy(logits, tokens, reduction="sum") / num_items
        return loss

    @torch.no_grad()
    def mean_loss(self, examples: Sequence[Example], collate: Collator) -> float | None:
        """Mean loss per token on held-out examples, None if there are none; every process computes it."""
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

    def check_weights(self) -> None:
        """Raises `TrainingError` if a trained weight is not finite, so that nothing continues from it."""
        trained = (value for value in self.model.parameters() if value.requires_grad)
        if not all(bool(torch.isfinite(value).all()) for value in trained):
            raise TrainingError(
                f"{self._stage}: a weight is not finite after step {self.state.global_step};"
                f" lower {self._stage}.learning_rate ({self.args.learning_rate})"
            )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.check_weights()
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # each process has a random state of its own to save
        if self.is_world_process_zero():
            folder = Path(str(self.args.output_dir))
            checkpoint = folder / f"{PREFIX}{self.state.global_step}"
            mark_complete(checkpoint)
            keep_newest(folder, _KEPT_CHECKPOINTS)
        self.accelerator.wait_for_everyone()

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Writes nothing: the card belongs to the registered bundle."""

    def _send_telemetry(self) -> None:
        """Sends nothing."""


class Reporter(TrainerCallback):
    """Computes the loss on held-out clips, and reports metrics from the first process."""

    def __init__(
        self,
        stage: str,
        on_metrics: OnMetrics,
        validate: Callable[[], float | None],
        throughput: Throughput,
    ) -> None:
        self._stage = stage
        self._on_metrics, self._validate = on_metrics, validate
        self._throughput = throughput
        self._started = time.monotonic()
        self._tokens: int | None = None  # seen so far; None before the first step of this (or a resumed) run

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Starts the clock of a step."""
        if self._tokens is None:
            self._tokens = int(state.num_input_tokens_seen)
        self._throughput.start()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stops the clock; computes the validation loss at steps that the training's length alone decides."""
        self._throughput.stop()
        step = state.global_step
        if step % -(-state.max_steps // _VALIDATIONS) == 0 or step == state.max_steps:
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
        """Reports the metrics under our names."""
        if not logs or "loss" not in logs or not state.is_world_process_zero:
            return
        metrics = {ours: float(logs[theirs]) for theirs, ours in _METRICS.items() if theirs in logs}
        seen = int(state.num_input_tokens_seen)
        self._throughput.count(trained=seen - (self._tokens or 0))
        self._tokens = seen
        metrics |= self._throughput.read()
        self._on_metrics(metrics, state.global_step)
        if state.global_step % (5 * LOG_STEPS) == 0:
            seconds = time.monotonic() - self._started
            logger.info(
                "%s: step %d of %d, loss %.3f, %.0f s",
                self._stage,
                state.global_step,
                state.max_steps,
                metrics["loss"],
                seconds,
            )
