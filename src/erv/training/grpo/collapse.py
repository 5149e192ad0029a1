"""Detects when training has nothing left to learn from, and which checkpoint from before is kept.

GRPO learns from reward differences within a group. If no group has any, only the KL term is left, and further
steps take time without teaching anything. This happens in two ways. If every completion earns the
maximum, training ends early and the policy is written. If all completions of a clip earn the same but less
than the maximum, the policy has collapsed: the stage fails, and the last checkpoint from before is kept.

Only new completions count: with `grpo.num_iterations` above 1, further steps on the same ones say nothing.
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
    """The policy has become useless; the last good checkpoint holds its state from before the fault."""


class Outlook(Enum):
    """What a step suggests about the next ones."""

    LEARNS = "learns"
    SOLVED = "solved"
    COLLAPSED = "collapsed"


@dataclass
class CollapseAlarm:
    """Counts consecutive generations without any reward difference within a group.

    Attributes:
        patience: number of such generations that ends training; None to never end it.
        most: the value of each reward that earns most; None if unknown.
        since: the step that sampled the first of these generations; None while there are differences.
        solved: whether every completion has earned the maximum in all of them.
        count: how many there are.
        seen: the step of the generation that was counted last; 0 before the first.
    """

    patience: int | None
    most: Mapping[str, float | None]
    since: int | None = None
    solved: bool = True
    count: int = 0
    seen: int = 0

    def update(self, generation: Generation) -> Outlook:
        """Takes the completions that a step trains on, and says what they suggest.

        A generation is counted once, however many steps train on it.
        """
        if generation.step == self.seen:
            return Outlook.LEARNS
        self.seen = generation.step
        if generation.differs():
            self.since, self.solved, self.count = None, True, 0
            return Outlook.LEARNS
        if self.since is None:
            self.since = generation.step
        self.count += 1
        self.solved = self.solved and generation.earns_most(self.most)
        if self.patience is None or self.count < self.patience:
            return Outlook.LEARNS
        return Outlook.SOLVED if self.solved else Outlook.COLLAPSED

    def last_good(self) -> int | None:
        """The last step that learned something, if the policy may have collapsed since; otherwise None."""
        return None if self.patience is None or self.since is None else self.since - 1

    def describe(self, step: int, generation: Generation) -> str:
        """Describes a collapse: what happened and what to do."""
        scored = [total for total in generation.totals if total is not None]
        earned = f"they earn {fmean(scored):.2f} on average" if scored else "none of them can be scored"
        if scored and all(value is not None for value in self.most.values()):
            best = sum(generation.weights[name] * (value or 0.0) for name, value in self.most.items())
            earned += f", the maximum is {best:.2f}"
        return (
            f"grpo step {step}: in {self.patience} generations in a row the completions of each clip had the"
            f" same reward ({earned}), so there is nothing to learn; lower grpo.learning_rate, raise"
            " grpo.temperature or grpo.beta, check the rewards, or set grpo.collapse_patience to null"
        )

    def state(self) -> dict[str, Any]:
        """The alarm's state, for a checkpoint."""
        return {"since": self.since, "solved": self.solved, "count": self.count, "seen": self.seen}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores what `state` returned; an empty mapping starts from scratch."""
        self.since, self.solved = state.get("since"), bool(state.get("solved", True))
        self.count, self.seen = int(state.get("count", 0)), int(state.get("seen", 0))


def most_by_reward(rewards: Sequence[tuple[str, Callable[..., Any], float]]) -> dict[str, float | None]:
    """The value of each reward that earns most; for a custom reward its attribute `maximum`, or None.

    Args:
        rewards: (name, callable, weight); a reward with a negative weight earns most at its lowest value.
    """
    most: dict[str, float | None] = {}
    for name, reward, weight in rewards:
        if name in BUILT_IN_REWARDS:
            most[name] = 1.0 if weight >= 0 else 0.0
        else:
            most[name] = getattr(reward, "maximum", None) if weight >= 0 else None
    return most
