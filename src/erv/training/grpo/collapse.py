"""Training that has nothing to learn from any more: how it is noticed, and what is kept of the time before.

GRPO learns from differences of reward within a group. Where no group has any, only the KL term is left, and
further steps cost time without teaching anything. There are two such ends. The policy earns all there is:
training ends early, and its policy is written. Or all completions of a clip earn the same and it is not the
most: the policy has collapsed, the stage fails, and the last checkpoint from before stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import fmean
from typing import Any

from erv.errors import TrainingError
from erv.settings import BUILT_IN_REWARDS
from erv.training.grpo.generation import Generation


class Diverged(TrainingError):
    """The policy is of no use any more; what comes before the fault is in the last good checkpoint."""


class Outlook(Enum):
    """What a step says of the next ones."""

    LEARNS = "learns"
    SOLVED = "solved"
    COLLAPSED = "collapsed"


@dataclass
class CollapseAlarm:
    """Counts the steps in a row without any difference of reward within a group.

    Attributes:
        patience: so many of them end training; None: never.
        most: by reward, the value that earns most; None where nobody knows it.
        since: the first step of the row, None while there are differences.
        solved: in every step of the row every completion has earned the most.
    """

    patience: int | None
    most: Mapping[str, float | None]
    since: int | None = None
    solved: bool = True

    def update(self, step: int, generation: Generation) -> Outlook:
        """Takes what a step has sampled."""
        if generation.differs():
            self.since, self.solved = None, True
            return Outlook.LEARNS
        if self.since is None:
            self.since = step
        self.solved = self.solved and generation.earns_most(self.most)
        if self.patience is None or step - self.since + 1 < self.patience:
            return Outlook.LEARNS
        return Outlook.SOLVED if self.solved else Outlook.COLLAPSED

    def last_good(self) -> int | None:
        """The last step that learned something, while it may be that the policy has collapsed since."""
        return None if self.patience is None or self.since is None else self.since - 1

    def describe(self, step: int, generation: Generation) -> str:
        """Says of a collapse what has happened and what to do."""
        scored = [total for total in generation.totals if total is not None]
        earned = f"they earn {fmean(scored):.2f} in the mean" if scored else "none of them can be scored"
        if scored and all(value is not None for value in self.most.values()):
            best = sum(generation.weights[name] * (value or 0.0) for name, value in self.most.items())
            earned += f", {best:.2f} would be the most"
        return (
            f"grpo step {step}: for {self.patience} steps the completions of each clip have had the same"
            f" reward ({earned}), and nothing can be learned from that; lower grpo.learning_rate, raise"
            " grpo.temperature or grpo.beta, check the rewards, or set grpo.collapse_patience to null"
        )

    def state(self) -> dict[str, Any]:
        """What it knows, for a checkpoint."""
        return {"since": self.since, "solved": self.solved}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state` returned; an empty one starts from nothing."""
        self.since, self.solved = state.get("since"), bool(state.get("solved", True))


def most_by_reward(rewards: Sequence[tuple[str, Callable[..., Any], float]]) -> dict[str, float | None]:
    """By reward, the value that earns most: of one's own the attribute `maximum`, None without it.

    Args:
        rewards: (name, callable, weight); one of negative weight earns most where it is lowest.
    """
    most: dict[str, float | None] = {}
    for name, reward, weight in rewards:
        if name in BUILT_IN_REWARDS:
            most[name] = 1.0 if weight >= 0 else 0.0
        else:
            most[name] = getattr(reward, "maximum", None) if weight >= 0 else None
    return most
