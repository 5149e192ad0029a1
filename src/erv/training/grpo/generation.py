"""What a training step has sampled and what that earned, read from where TRL keeps it for its own logs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from erv.prompts import completion_text

if TYPE_CHECKING:
    from erv.training.grpo.trainer import OmniGRPOTrainer

EQUAL = 1e-6  # rewards of a group that differ by less are the same: float32 sums of equal parts


@dataclass(frozen=True)
class Generation:
    """The completions of a step, of all processes, group after group.

    Attributes:
        completions: n texts.
        rewards: per reward n values, None where a completion could not be scored.
        weights: of the rewards, by name.
        advantages: n values.
        columns: further columns of n values: `clip_id`, `dataset`, `solution`, where the rows have them.
        group: completions per prompt; n is a multiple of it.
    """

    completions: Sequence[str]
    rewards: Mapping[str, Sequence[float | None]]
    weights: Mapping[str, float]
    advantages: Sequence[float]
    columns: Mapping[str, Sequence[Any]]
    group: int

    @property
    def totals(self) -> list[float | None]:
        """The weighted sum of each completion; None for one that no reward could score."""
        found: list[float | None] = []
        for row in range(len(self.completions)):
            scored = {
                name: value for name, values in self.rewards.items() if (value := values[row]) is not None
            }
            found.append(
                sum(self.weights[name] * value for name, value in scored.items()) if scored else None
            )
        return found

    def differs(self) -> bool:
        """Whether any two completions of one prompt earn different sums: without that nothing is learned."""
        totals = self.totals
        for start in range(0, len(totals), self.group):
            scored = [value for value in totals[start : start + self.group] if value is not None]
            if scored and max(scored) - min(scored) > EQUAL * max(1.0, abs(max(scored))):
                return True
        return False

    def earns_most(self, most: Mapping[str, float | None]) -> bool:
        """Whether every completion earns as much as there is.

        Args:
            most: by reward, the value that earns most; None where nobody knows it.
        """
        if any(total is None for total in self.totals):
            return False
        for name, values in self.rewards.items():
            limit = most[name]
            if self.weights[name] == 0.0:
                continue
            if limit is None or any(value is not None and abs(value - limit) > EQUAL for value in values):
                return False
        return True


def last_generation(trainer: OmniGRPOTrainer) -> Generation:
    """The newest completions of a trainer; the same on every process."""
    logs = trainer._logs
    return Generation(
        completions=[completion_text(item) for item in logs["completion"]],
        rewards={
            name: [None if math.isnan(value) else value for value in values]
            for name, values in logs["rewards"].items()
        },
        weights=dict(zip(trainer.reward_func_names, trainer.reward_weights.tolist(), strict=True)),
        advantages=list(logs["advantages"]),
        columns={name: list(values) for name, values in logs["extra"].items()},
        group=trainer.num_generations,
    )
