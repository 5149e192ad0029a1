"""What GRPO shows while it runs: metrics, drift, samples and progress, without chatter from libraries."""

from __future__ import annotations

import json
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from erv.files import write_document
from erv.rewards.explanation import Shaping
from erv.settings import GrpoSettings
from erv.training.common.throughput import OnMetrics, Throughput
from erv.training.grpo.collapse import CollapseAlarm, Diverged, Outlook, most_by_reward
from erv.training.grpo.drift import DriftAlarm, shape
from erv.training.grpo.generation import Generation
from erv.training.grpo.samples import SampleTable, take_samples
from erv.verifier.protocol import Verifier

logger = logging.getLogger(__name__)

OnSamples = Callable[[SampleTable], None]

# TRL's names on the left, ours on the right; the rewards are added by name.
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
    "engine/ratio": "engine/ratio",
    "engine/truncated_share": "engine/truncated_share",
    "engine/kl": "engine/kl",
    "engine/without_log_prob": "engine/without_log_prob",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "step_time": "step_seconds",
}

FILE = "watch.json"  # in a checkpoint: what the watcher knows about earlier steps


class Watcher(TrainerCallback):
    """Sees every generation and every step of a run.

    It reports each step's metrics, warns of drift, passes samples on, logs progress, and ends training that
    has nothing left to learn from. With several processes, all watchers see the same and so decide alike;
    only the main process reports.
    """

    def __init__(
        self,
        settings: GrpoSettings,
        steps: int,
        rewards: Sequence[tuple[str, Callable[..., Any], float]],
        throughput: Throughput,
        on_metrics: OnMetrics,
        on_samples: OnSamples | None = None,
        verifier: Verifier | None = None,
        *,
        sample_steps: int,
    ) -> None:
        """Makes the watcher of a run.

        Args:
            settings: the section `grpo`.
            steps: steps of the whole run.
            rewards: (name, callable, weight).
            throughput: meter for this process's device.
            on_metrics: called with the metrics of a step and the step, from 1.
            on_samples: called with some completions every `sample_steps` steps, at the last step, and if
                training ends early.
            verifier: reads the sentences of these.
            sample_steps: see `on_samples`.
        """
        self._settings, self._sample_steps = settings, sample_steps
        self._throughput = throughput
        self._on_metrics = on_metrics
        self._on_samples = on_samples
        self._verifier = verifier
        self._drift = DriftAlarm()
        self._collapse = CollapseAlarm(settings.collapse_patience, most_by_reward(rewards))
        self._generation: Generation | None = None
        self._every = max(1, steps // 20)
        self._began: tuple[float, int] | None = None
        self._sampled: dict[str, float] = {}  # metrics of the step that sampled the completions in use

    # --- what the trainer calls ---

    def on_generation(self, generation: Generation) -> None:
        """Takes the completions that steps train on until the next generation."""
        self._generation = generation

    def save(self, checkpoint: Path) -> None:
        """Writes the watcher's state into a checkpoint's folder."""
        state = {"drift": self._drift.state(), "collapse": self._collapse.state()}
        write_document(state, checkpoint / FILE)

    def load(self, checkpoint: Path) -> None:
        """Restores the state from a checkpoint; starts from scratch if the checkpoint has none."""
        path = checkpoint / FILE
        state = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        self._drift.restore(state.get("drift", {}))
        self._collapse.restore(state.get("collapse", {}))

    def last_good(self) -> int | None:
        """The last step that learned something, if the policy may have collapsed since; otherwise None."""
        return self._collapse.last_good()

    # --- what `transformers` calls ---

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Records when training and the step began."""
        if self._began is None:
            self._began = time.monotonic(), state.global_step
        self._throughput.start()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Records when the step ended."""
        self._throughput.stop()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Looks at a step that has ended.

        Raises:
            Diverged: the loss or the gradient is not finite; or in `collapse_patience` generations in a row
                no group had different rewards, and the completions don't earn the maximum.
        """
        if not logs or "loss" not in logs:
            return  # the summary at the end
        assert self._generation is not None
        step, generation = state.global_step, self._generation
        metrics = _metrics(logs)
        for name in ("loss", "grad_norm"):
            if not math.isfinite(metrics.get(name, 0.0)):
                raise Diverged(
                    f"grpo step {step}: {name} is {metrics[name]}; "
                    "lower grpo.learning_rate or check the rewards"
                )
        fresh = generation.step == step  # further steps on the same completions would report them twice
        if fresh:
            named = self._settings.shaping.max_named
            metrics |= shape(generation, max_named=named, verifier=self._verifier)
            self._sampled = dict(metrics)
        drifts = self._drift.update(metrics)
        metrics["drift_warnings"] = float(self._drift.warnings)
        generated = generation.completion_tokens
        self._throughput.count(
            trained=generation.prompt_tokens + generated, generated=generated if fresh else 0
        )
        metrics |= self._throughput.read()
        if state.is_world_process_zero:
            self._report(metrics, drifts, state)
        self._look_ahead(generation, state, control)

    def _report(self, metrics: dict[str, float], drifts: Sequence[str], state: TrainerState) -> None:
        for sentence in drifts:
            logger.warning("grpo step %d: %s", state.global_step, sentence)
        self._on_metrics(metrics, state.global_step)
        if state.global_step % self._every == 0 or state.global_step == state.max_steps:
            logger.info("grpo: %s", self._line(metrics, state))

    def _look_ahead(self, generation: Generation, state: TrainerState, control: TrainerControl) -> None:
        """Passes samples on when they are due, and ends training that learns nothing."""
        step = state.global_step
        outlook = self._collapse.update(generation)
        ends = outlook is not Outlook.LEARNS or step == state.max_steps
        if state.is_world_process_zero and (ends or step % self._sample_steps == 0):
            self._show(step, generation)
        if outlook is Outlook.COLLAPSED:
            raise Diverged(self._collapse.describe(step, generation))
        if outlook is Outlook.SOLVED:
            logger.info(
                "grpo step %d: in %d generations in a row every completion has earned the maximum;"
                " nothing is left to learn, so training ends here",
                step,
                self._collapse.patience,
            )
            control.should_training_stop = True
            # Checkpoints are for resuming; if restarted, training reaches this end from the last one.
            control.should_save = False

    def _show(self, step: int, generation: Generation) -> None:
        if self._on_samples is not None:
            shaping = Shaping(**self._settings.shaping.model_dump())
            semantics = self._settings.semantics
            self._on_samples(
                take_samples(step, generation, self._verifier, semantics=semantics, shaping=shaping)
            )

    def _line(self, metrics: dict[str, float], state: TrainerState) -> str:
        assert self._began is not None
        began, first = self._began
        pace = (time.monotonic() - began) / (state.global_step - first)
        left = round(pace * (state.max_steps - state.global_step))
        # TRL reports rewards and lengths only where it samples. With several updates per generation, the
        # steps that are due for a line may all be later ones.
        rewards = [
            f"{name.removeprefix('reward/')} {value:.2f}"
            for name, value in self._sampled.items()
            if name.startswith("reward/")
        ]
        if metrics.get("explanations/unreadable"):
            rewards.append(f"unreadable sentences {metrics['explanations/unreadable']:.0%}")
        return (
            f"step {state.global_step}/{state.max_steps}, {', '.join(rewards) or 'nothing sampled yet'},"
            f" kl {metrics.get('kl', 0):.4f}, {self._sampled.get('completion_length', 0):.0f} tokens,"
            f" {pace:.2f} s per step, {left // 60}:{left % 60:02d} left"
        )


def _metrics(logs: Mapping[str, Any]) -> dict[str, float]:
    """TRL's log entry under our names, without values that don't exist in this step."""
    metrics = {ours: float(logs[theirs]) for theirs, ours in METRICS.items() if logs.get(theirs) is not None}
    for name, value in logs.items():
        if name.startswith("rewards/") and name.endswith("/mean") and value is not None:
            metrics[f"reward/{name.removeprefix('rewards/').removesuffix('/mean')}"] = float(value)
    return metrics


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silences progress bars and deprecation warnings that the libraries cause among each other.

    It also stops TRL from printing whole rows if no reward can score them (`None` is a normal answer here),
    and Trainer from complaining that a tied head is missing in a checkpoint.
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
