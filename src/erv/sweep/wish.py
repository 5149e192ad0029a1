"""A sweep as it is asked for, by its command or in its form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Wish:
    """What is asked for; what is empty, 0 or -1 is as the sweep of that name has it, or the usual.

    These are the parameters of `flows.sweep.sweep`, which says what each means.
    """

    name: str
    over: Sequence[str] = ()
    trials: int = 0
    at_a_time: int = 0
    stage: str = ""
    metric: str = ""
    direction: str = ""
    overrides: Sequence[str] = ()
    seed: int = -1
    sampler: str = ""
    prune: str = ""
    prune_after: int = 0
    most_failed: int = -1
    propose: str = ""
    workers: int = 1

    def planned(self) -> dict[str, Any]:
        """What is given of a plan, by the names of its fields, apart from what varies."""
        given: dict[str, Any] = {
            "stage": self.stage,
            "metric": self.metric,
            "direction": self.direction,
            "overrides": tuple(self.overrides),
            "sampler": self.sampler,
            "prune_after": self.prune_after,
        }
        found = {name: value for name, value in given.items() if value}
        if self.seed >= 0:
            found["seed"] = self.seed
        if self.prune:
            found["prune"] = self.prune == "yes"
        return found
