"""What GRPO's policy answers about held-out clips while it learns, and what the answers earn.

Nothing of the training depends on it: answers are greedy, so no random number is drawn; the rewards are
others than those of the training, so that what these remember stays as it is; and no result is written but
metrics. A run with and one without it end in the same weights.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from erv.errors import DataError
from erv.files import sha256_of_text
from erv.training.common.throughput import OnMetrics
from erv.training.grpo.checked_reward import CheckedReward

logger = logging.getLogger(__name__)

PREFIX = "validation/"
ACCURACY = f"{PREFIX}accuracy"
REWARD = f"{PREFIX}reward"

Rewards = Sequence[tuple[str, Callable[..., Any], float]]
Answer = Callable[[Sequence[dict[str, Any]]], list[str]]


@dataclass(frozen=True)
class Validation:
    """How the policy is measured on held-out clips.

    Attributes:
        rows: from `build_rows` with the split `validation`.
        rewards: (name, callable, weight) of the variant; not the callables that training uses.
        accuracy: the reward `accuracy`, whether or not the variant has it.
        steps: steps between measurements; the last step has one too.
    """

    rows: Sequence[dict[str, Any]]
    rewards: Rewards
    accuracy: Callable[..., Any]
    steps: int


def drawn(rows: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """At most so many of the rows, always the same ones of the same clips, in their order.

    Args:
        rows: from `build_rows`.
        most: how many; 1 or more.

    Raises:
        DataError: there are none.
    """
    if not rows:
        raise DataError(
            "grpo: machine.grpo.validate_steps asks for measurements on validation clips, but the data sets"
            " in roles.train have none; raise ingest.validation_share, or leave validate_steps empty"
        )
    chosen = {row["clip"] for row in sorted(rows, key=lambda row: sha256_of_text(row["clip"]))[:most]}
    return [row for row in rows if row["clip"] in chosen]


def measured(validation: Validation, answers: Sequence[str]) -> dict[str, float]:
    """The mean of what the answers earn, by the name of the series.

    Args:
        validation: whose rows these answer, in their order.
        answers: whole completions.

    Returns:
        `validation/accuracy`, `validation/reward` (the weighted sum that GRPO maximises) and
        `validation/reward/NAME`; a series is missing where no answer could be scored.
    """
    rows = validation.rows
    columns = {name: [row[name] for row in rows] for name in rows[0] if name != "prompt"}
    columns["prompts"] = [row["prompt"] for row in rows]
    completions = [[{"role": "assistant", "content": text}] for text in answers]

    def score(name: str, reward: Callable[..., Any]) -> list[float | None]:
        return CheckedReward(name, reward)(completions=completions, **columns)

    by_name = {name: score(name, reward) for name, reward, _ in validation.rewards}
    weights = {name: weight for name, _, weight in validation.rewards}
    totals = [_total(weights, values) for values in zip(*by_name.values(), strict=True)]
    series = {
        ACCURACY: score("accuracy", validation.accuracy),
        REWARD: totals,
        **{f"{REWARD}/{name}": values for name, values in by_name.items()},
    }
    return {name: mean for name, values in series.items() if (mean := _mean(values)) is not None}


class Validating(TrainerCallback):
    """Measures at steps that the settings decide, and reports from the first process."""

    def __init__(self, validation: Validation, on_metrics: OnMetrics) -> None:
        self._validation, self._on_metrics = validation, on_metrics
        self._answer: Answer | None = None
        self._measured: int | None = None

    def ask(self, answer: Answer) -> None:
        """Takes what answers: the trainer, which is made with this callback."""
        self._answer = answer

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measures if it is due."""
        if state.global_step % self._validation.steps == 0 or state.global_step == state.max_steps:
            self.measure(state)

    def measure(self, state: TrainerState) -> None:
        """Measures the policy as it is, unless that was done in this step; in every process."""
        if self._measured == state.global_step:
            return
        assert self._answer is not None
        self._measured = state.global_step
        found = measured(self._validation, self._answer(self._validation.rows))
        if state.is_world_process_zero:
            self._on_metrics(found, state.global_step)
            said = ", ".join(f"{name.removeprefix(PREFIX)} {value:.3f}" for name, value in found.items())
            logger.info(
                "grpo: step %d, %d validation clips: %s", state.global_step, len(self._validation.rows), said
            )


def _total(weights: Mapping[str, float], values: Sequence[float | None]) -> float | None:
    """The weighted sum of what could be scored, as TRL takes it; None if nothing could."""
    scored = [
        weight * value for weight, value in zip(weights.values(), values, strict=True) if value is not None
    ]
    return sum(scored) if scored else None


def _mean(values: Sequence[float | None]) -> float | None:
    scored = [value for value in values if value is not None]
    return sum(scored) / len(scored) if scored else None
