"""The completions of a GRPO step and what they earned: one object, passed from trainer to watcher."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch

Stretch = tuple[int, int, float]
EQUAL = 1e-6  # rewards of a group that differ by less count as equal: float32 sums of equal parts
COLUMNS = ("clip_id", "dataset", "solution")


@dataclass(frozen=True)
class Generation:
    """The completions of a step, from all processes, group by group.

    Attributes:
        step: the optimiser step that first trains on them, from 1.
        group: completions per prompt; n is a multiple of this.
        completions: n texts.
        rewards: n values per reward, as the reward returned them; None if a completion could not be scored.
        weights: the weight of each reward, by name.
        advantages: n values.
        columns: those of `COLUMNS` that the rows have, n values each.
        prompt_tokens: tokens in all n prompts, without padding.
        completion_tokens: tokens in all n completions.
        processes: number of processes that sampled them: n / processes rows each, in the order of processes.
        credits: with `grpo.credit: sentence`, per completion the stretches whose tokens have an
            advantage of their own: first character, the one after the last, advantage. Otherwise empty.
    """

    step: int
    group: int
    completions: Sequence[str]
    rewards: Mapping[str, Sequence[float | None]]
    weights: Mapping[str, float]
    advantages: Sequence[float]
    columns: Mapping[str, Sequence[Any]]
    prompt_tokens: int
    completion_tokens: int
    processes: int = 1
    credits: Sequence[Sequence[Stretch]] = ()

    @classmethod
    def join(cls, parts: Sequence[Generation]) -> Generation:
        """Joins the generations of the processes, given in the order of processes."""
        first = parts[0]
        return replace(
            first,
            completions=_chained(part.completions for part in parts),
            rewards={name: _chained(part.rewards[name] for part in parts) for name in first.rewards},
            advantages=_chained(part.advantages for part in parts),
            columns={name: _chained(part.columns[name] for part in parts) for name in first.columns},
            prompt_tokens=sum(part.prompt_tokens for part in parts),
            completion_tokens=sum(part.completion_tokens for part in parts),
            processes=len(parts),
            credits=tuple(chain.from_iterable(part.credits for part in parts)),
        )

    @property
    def shares(self) -> list[slice]:
        """The rows of each process."""
        size = len(self.completions) // self.processes
        return [slice(rank * size, (rank + 1) * size) for rank in range(self.processes)]

    @property
    def trained_rewards(self) -> dict[str, list[float | None]]:
        """The rewards in float32, as training uses them."""
        return {name: _single(values) for name, values in self.rewards.items()}

    @property
    def totals(self) -> list[float | None]:
        """The weighted sum of rewards of each completion; None if no reward could score it."""
        rewards = self.trained_rewards
        found: list[float | None] = []
        for row in range(len(self.completions)):
            scored = {name: value for name, values in rewards.items() if (value := values[row]) is not None}
            found.append(
                sum(self.weights[name] * value for name, value in scored.items()) if scored else None
            )
        return found

    def differs(self) -> bool:
        """Whether there is something to learn.

        That is so if two completions of one prompt earn different sums, or sentences of one different credit.
        """
        if any(self.credits):
            return True
        totals = self.totals
        for start in range(0, len(totals), self.group):
            scored = [value for value in totals[start : start + self.group] if value is not None]
            if scored and max(scored) - min(scored) > EQUAL * max(1.0, abs(max(scored))):
                return True
        return False

    def earns_most(self, most: Mapping[str, float | None]) -> bool:
        """Whether every completion earns the maximum.

        Args:
            most: the value of each reward that earns most; None if unknown.
        """
        if any(total is None for total in self.totals):
            return False
        for name, values in self.trained_rewards.items():
            limit = most[name]
            if self.weights[name] == 0.0:
                continue
            if limit is None or any(value is not None and abs(value - limit) > EQUAL for value in values):
                return False
        return True


def _chained(values: Iterable[Sequence[Any]]) -> list[Any]:
    return list(chain.from_iterable(values))


def _single(values: Sequence[float | None]) -> list[float | None]:
    numbers = torch.tensor([math.nan if value is None else value for value in values], dtype=torch.float32)
    return [None if math.isnan(number) else number for number in numbers.tolist()]
