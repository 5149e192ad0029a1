"""What a reward says of single stretches of a completion, besides one value for all of it.

A reward that knows which sentences earned it and which cost it has a method `credited`, called like the
reward itself. With `grpo.credit: sentence` these verdicts reach the tokens (`erv.training.grpo.credit`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True)
class Credit:
    """The verdict on a stretch of a completion.

    Attributes:
        start: its first character in the completion.
        end: the character after its last one.
        value: what it earns, on the reward's scale. Of `explanation` and `coherence`, the mean over a
            completion's credits is its reward; `grounded` weighs sentences by their claims.
    """

    start: int
    end: int
    value: float


@dataclass(frozen=True)
class Credited:
    """The reward of a completion, None if it can't be scored, and the credits behind it, by place."""

    reward: float | None
    credits: tuple[Credit, ...] = ()


@runtime_checkable
class CreditingReward(Protocol):
    """A reward that can say which stretches earned it."""

    def credited(self, *, completions: Sequence[Any], **columns: Any) -> list[Credited]:
        """One entry per completion; the rewards are those of the plain call."""
