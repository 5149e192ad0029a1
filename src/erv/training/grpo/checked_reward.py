"""A reward as TRL calls it, with every fault turned into one sentence that names the reward."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable
from typing import Any

from erv.errors import ErvError, TrainingError
from erv.training.grpo.reward_watch import measure, reward_by_class

CLIP_COLUMNS = ("clip_id", "dataset", "solution")


class CheckedReward:
    """Wraps a reward callable: same call, same result, but a fault says which reward and what is wrong.

    TRL logs a reward under its `__name__`; here that is the name from the settings. Through TRL's
    `log_metric` it also logs the reward by true emotion, and, if it is the one that watches, the shape of the
    completions and, through `log_extra`, which clips they are of.
    """

    def __init__(
        self, name: str, reward: Callable[..., Any], *, watches: bool = False, max_named: int | None = None
    ) -> None:
        """Wraps a reward.

        Args:
            name: that it is logged under.
            reward: the callable.
            watches: log the shape of the completions and their clips too; one reward of a run does.
            max_named: emotions that a sentence may name before it counts as a listing.
        """
        self.__name__ = name
        self._reward = reward
        self._watches = watches
        self._max_named = max_named

    def __call__(self, *, completions: list[Any], **columns: Any) -> list[float | None]:
        """One reward per completion; `None` where the completion can't be scored.

        Raises:
            TrainingError: the reward raised, returned another number of values, or a value that is no finite
                number.
        """
        name = self.__name__
        try:
            values = self._reward(completions=completions, **columns)
            if inspect.isawaitable(values):
                values = asyncio.run(_await(values))
            values = values.tolist() if hasattr(values, "tolist") else list(values)
        except ErvError:
            raise
        except Exception as error:
            raise TrainingError(
                f"reward {name!r} raised {type(error).__name__}: {error}; "
                "it is called with completions and the columns of the data set as keywords, "
                "and returns a number or None per completion"
            ) from error
        if len(values) != len(completions):
            raise TrainingError(
                f"reward {name!r} returned {len(values)} values for {len(completions)} completions; "
                "return one per completion, None where it can't be scored"
            )
        numbers = [None if value is None else _number(name, value) for value in values]
        self._log(completions, numbers, columns)
        return numbers

    def _log(self, completions: list[Any], values: list[float | None], columns: dict[str, Any]) -> None:
        log = columns.get("log_metric")
        if log is None:
            return
        found = measure(completions, max_named=self._max_named) if self._watches else {}
        if "solution" in columns:
            datasets = columns.get("dataset") or [None] * len(values)
            found |= reward_by_class(self.__name__, values, columns["solution"], datasets)
        for name, value in found.items():
            log(name, value)
        log_column = columns.get("log_extra")
        if self._watches and log_column is not None:
            for name in CLIP_COLUMNS:
                if name in columns:
                    log_column(name, list(columns[name]))


async def _await(value: Any) -> Any:
    return await value


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise TrainingError(
            f"reward {name!r} returned {value!r}; expected a finite number, or None for not scorable"
        )
    return number
