"""What is seen of GRPO while it runs: metrics under our names, lines of progress, no chatter of libraries."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from erv.training.grpo.collapse import Diverged
from erv.training.grpo.reward_watch import BY_CLASS, DriftAlarm
from erv.training.throughput import Throughput

logger = logging.getLogger(__name__)

OnMetrics = Callable[[dict[str, float], int], None]

# TRL's names on the left, ours on the right; rewards by name are added.
METRICS = {
    "loss": "loss",
    "reward": "reward",
    "reward_std": "reward_std",
    "frac_reward_zero_std": "zero_std_share",
    "kl": "kl",
    "entropy": "entropy",
    "completions/mean_length": "completion_length",
    "completions/clipped_ratio": "truncated_share",
    "clip_ratio/region_mean": "clipped_share",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "step_time": "step_seconds",
}

WATCHED = (BY_CLASS, "explanations/", "answers/")


class Watcher(TrainerCallback):
    """Passes each step's metrics on, warns of drift, stops at a gradient that is not finite, says how far.

    Of several processes each checks, and the main one alone reports.
    """

    def __init__(
        self, on_metrics: OnMetrics, steps: int, alarm: DriftAlarm, throughput: Throughput, rows: int
    ) -> None:
        """Takes what it reports to.

        Args:
            on_metrics: called with the metrics of a step and its number, from 1.
            steps: of the whole run.
            alarm: of drift.
            throughput: of this process's device.
            rows: completions of a step, of all processes.
        """
        self._on_metrics = on_metrics
        self._alarm = alarm
        self._throughput = throughput
        self._rows = rows
        self._seen: float = 0  # tokens that were sampled or prompts, when the step began
        self._tokens = 0  # of the completions that are trained on, with their prompts
        self._every = max(1, steps // 20)
        self._began: tuple[float, int] | None = None

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Notes when training and the step began."""
        if self._began is None:
            self._began = time.monotonic(), state.global_step
        self._seen = state.num_input_tokens_seen
        self._throughput.start()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Notes when the step ended."""
        self._throughput.stop()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Passes the metrics of a step on.

        Raises:
            Diverged: loss or gradient is not finite.
        """
        if not logs or "loss" not in logs:
            return  # the summary at the end
        metrics = _metrics(logs)
        for name in ("loss", "grad_norm"):
            if not torch.isfinite(torch.tensor(metrics.get(name, 0.0))):
                raise Diverged(
                    f"grpo step {state.global_step}: {name} is {metrics[name]}; "
                    "lower grpo.learning_rate or check the rewards"
                )
        drifts = self._alarm.update(metrics)
        metrics["drift_warnings"] = float(self._alarm.warnings)
        metrics |= self._speed(metrics, state)
        if not state.is_world_process_zero:
            return
        for sentence in drifts:
            logger.warning("grpo step %d: %s", state.global_step, sentence)
        self._on_metrics(metrics, state.global_step)
        if state.global_step % self._every == 0 or state.global_step == state.max_steps:
            logger.info("grpo: %s", self._line(metrics, state))

    def _speed(self, metrics: Mapping[str, float], state: TrainerState) -> dict[str, float]:
        """Tokens per second and the GPU; a further step on the same completions samples none."""
        generated = round(metrics.get("completion_length", 0.0) * self._rows)
        if generated:
            self._tokens = round(state.num_input_tokens_seen - self._seen)
        self._throughput.count(trained=self._tokens, generated=generated)
        return self._throughput.read()

    def _line(self, metrics: dict[str, float], state: TrainerState) -> str:
        assert self._began is not None
        began, first = self._began
        pace = (time.monotonic() - began) / (state.global_step - first)
        left = round(pace * (state.max_steps - state.global_step))
        rewards = [
            f"{name.removeprefix('reward/')} {value:.2f}"
            for name, value in metrics.items()
            if name.startswith("reward/")
        ]
        return (
            f"step {state.global_step}/{state.max_steps}, {', '.join(rewards) or 'no new completions'},"
            f" kl {metrics.get('kl', 0):.4f}, {metrics.get('completion_length', 0):.0f} tokens,"
            f" {pace:.2f} s a step, {left // 60}:{left % 60:02d} left"
        )


def _metrics(logs: Mapping[str, Any]) -> dict[str, float]:
    """TRL's log entry under our names; values that don't exist in this step are left out."""
    metrics = {ours: float(logs[theirs]) for theirs, ours in METRICS.items() if logs.get(theirs) is not None}
    for name, value in logs.items():
        if name.startswith("rewards/") and name.endswith("/mean") and value is not None:
            metrics[f"reward/{name.removeprefix('rewards/').removesuffix('/mean')}"] = float(value)
        elif name.startswith(WATCHED) and value is not None:
            metrics[name] = float(value)
    return metrics


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Within: no progress bars and no notes on deprecations between the libraries.

    Nor does TRL print whole rows where no reward can score (`None` is a normal answer here), nor does Trainer
    miss a tied head in a checkpoint.
    """
    from transformers.utils import logging as transformers_logging

    chatty = [logging.getLogger(name) for name in ("trl.trainer.grpo_trainer", "transformers.trainer")]
    levels = [chatter.level for chatter in chatty]
    bars = transformers_logging.is_progress_bar_enabled()
    for chatter in chatty:
        chatter.setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl)\.")
            yield
    finally:
        for chatter, level in zip(chatty, levels, strict=True):
            chatter.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()
