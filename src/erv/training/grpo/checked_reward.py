"""A reward as TRL calls it; every fault becomes a one-sentence error that names the reward."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

from erv.errors import ErvError, TrainingError
from erv.event_loop import run_to_end
from erv.rewards.credit import Credit, CreditingReward


class CheckedReward:
    """Wraps a reward callable: same call, same result, but errors say which reward failed and why.

    TRL logs a reward under its `__name__`; here that is the name from the settings.

    Attributes:
        values: what the latest call returned.
        credits: the verdicts on stretches behind each of these; None unless asked for and known.
    """

    def __init__(self, name: str, reward: Callable[..., Any], *, credited: bool = False) -> None:
        """Wraps a reward.

        Args:
            name: used for logging.
            reward: the callable.
            credited: whether to keep the credits too, if the reward gives any (`CreditingReward`).
        """
        self.__name__ = name
        self._reward = reward
        self._credited = credited
        self.values: list[float | None] = []
        self.credits: list[tuple[Credit, ...]] | None = None

    def __call__(self, *, completions: list[Any], **columns: Any) -> list[float | None]:
        """One reward per completion; `None` if the completion can't be scored.

        Raises:
            TrainingError: the reward raised an error, or returned a wrong number of values or a value that is
                not a finite number.
        """
        name = self.__name__
        try:
            values = self._read(completions, columns)
            if inspect.isawaitable(values):
                values = run_to_end(_await(values))
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
                "return one per completion, None if it can't be scored"
            )
        self.values = [None if value is None else _number(name, value) for value in values]
        return self.values

    def _read(self, completions: list[Any], columns: dict[str, Any]) -> Any:
        if not (self._credited and isinstance(self._reward, CreditingReward)):
            return self._reward(completions=completions, **columns)
        found = self._reward.credited(completions=completions, **columns)
        self.credits = [item.credits for item in found]
        return [item.reward for item in found]


async def _await(value: Any) -> Any:
    return await value


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise TrainingError(
            f"reward {name!r} returned {value!r}; expected a finite number, or None if it can't be scored"
        )
    return number
