"""The parameters that a sweep varies: `grpo.beta=0.01:0.2:log`, `grpo.loss_type=grpo,dapo`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erv.errors import SettingsError
from erv.files import parse_yaml
from erv.settings.overrides import overridden
from erv.sweep.whole import whole

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FORM = r"^[A-Za-z_][\w-]*(\.[\w-]+)*=.+$"
EXAMPLES = ("grpo.beta=0.01:0.2:log", "grpo.loss_type=grpo,dapo")
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"(?P<low>{_NUMBER}):(?P<high>{_NUMBER})(?P<log>:log)?")
_WHOLE = re.compile(r"[-+]?\d+")
_EXPECTED = f"expected NAME=LOW:HIGH, NAME=LOW:HIGH:log or NAME=A,B,..., such as {EXAMPLES[0]}"
# Commas within brackets or quotes belong to one choice: [a,b] is a list.
_CHOICE = re.compile(r"""(?:\[[^\]]*\]|\{[^}]*\}|"[^"]*"|'[^']*'|[^,\[{"'])+""")


@dataclass(frozen=True)
class Dimension:
    """One parameter and the values that may be tried.

    Attributes:
        name: dotted, as in `params.yaml`.
        text: of the values, as it was written.
        choices: the values as texts; empty for a range.
        low, high: the ends of a range, which belong to it.
        log: whether a range is searched on a logarithmic scale.
        whole: whether a range has whole numbers only.
    """

    name: str
    text: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    @property
    def distribution(self) -> BaseDistribution:
        """The same for Optuna."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choices:
            return CategoricalDistribution(self.choices)
        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def override(self, value: Any) -> str:
        """`grpo.beta=0.0712346`, as `erv run --set` takes it."""
        return f"{self.name}={_written(value)}"

    def extremes(self) -> list[str]:
        """Overrides that must be possible if all of them are to be: the ends of a range, or every choice."""
        if self.choices:
            return [self.override(choice) for choice in self.choices]
        ends: tuple[float, float] = (int(self.low), int(self.high)) if self.whole else (self.low, self.high)
        return [self.override(end) for end in ends]


@dataclass(frozen=True)
class Space:
    """All parameters that a sweep varies, each once."""

    dimensions: tuple[Dimension, ...]

    @property
    def names(self) -> list[str]:
        """The parameters."""
        return [dimension.name for dimension in self.dimensions]

    @property
    def texts(self) -> dict[str, str]:
        """The values as they were written, by parameter."""
        return {dimension.name: dimension.text for dimension in self.dimensions}

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """The same for Optuna."""
        return {dimension.name: dimension.distribution for dimension in self.dimensions}

    def overrides(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """What `erv run --set` takes to try these values."""
        return tuple(dimension.override(values[dimension.name]) for dimension in self.dimensions)

    def check(self, parameters: Path, overrides: Sequence[str] = ()) -> None:
        """Makes sure that `params.yaml` could have each extreme, one parameter at a time.

        Args:
            parameters: the file.
            overrides: what all trials set besides.

        Raises:
            SettingsError: it couldn't, there is no such parameter, or one is also in `overrides`.
        """
        fixed = {override.partition("=")[0] for override in overrides}
        for dimension in self.dimensions:
            if dimension.name in fixed:
                raise SettingsError(
                    f"{dimension.name} is both varied and set; leave out --set {dimension.name}"
                )
            for override in dimension.extremes():
                overridden(parameters, None, [*overrides, override])


def parse_dimension(text: str) -> Dimension:
    """The dimension that is written as `NAME=VALUES`.

    Raises:
        SettingsError: it isn't one.
    """
    name, sign, values = text.partition("=")
    if not sign or not re.match(FORM, text):
        raise SettingsError(f"{text!r}: {_EXPECTED}")
    found = _RANGE.fullmatch(values.strip())
    if found is None:
        choices = _choices(text, values)
        if len(choices) < 2 or not all(choices):
            raise SettingsError(f"{text!r}: one value leaves nothing to choose from; {_EXPECTED}")
        return Dimension(name, ",".join(choices), choices)
    low, high, log = float(found["low"]), float(found["high"]), found["log"] is not None
    if low >= high:
        raise SettingsError(f"{text!r}: the first end must be below the second")
    if log and low <= 0:
        raise SettingsError(f"{text!r}: a logarithmic scale has only numbers above 0; raise the first end")
    only = whole(name)
    if only and (odd := [found[end] for end in ("low", "high") if not float(found[end]).is_integer()]):
        raise SettingsError(f"{text!r}: {name} has whole numbers only, and {odd[0]} is none")
    if only is None:
        only = all(_WHOLE.fullmatch(found[end]) for end in ("low", "high"))
    return Dimension(name, values.strip(), low=low, high=high, log=log, whole=only)


def parse_space(texts: Sequence[str]) -> Space:
    """The space of these dimensions.

    Raises:
        SettingsError: one is no dimension, there are none, or two are of one parameter.
    """
    if not texts:
        raise SettingsError(f"a sweep needs parameters to vary: {_EXPECTED}")
    dimensions = [parse_dimension(text) for text in texts]
    names = [dimension.name for dimension in dimensions]
    if twice := [name for name in names if names.count(name) > 1]:
        raise SettingsError(f"{twice[0]} is varied twice; give its values once")
    return Space(tuple(dimensions))


def read_space(path: Path) -> list[str]:
    """The dimensions in a YAML file, `grpo.beta: 0.01:0.2:log` a line; a list is one of choices.

    Raises:
        SettingsError: there is no such file, or it is no mapping.
    """
    try:
        found = parse_yaml(path.read_bytes())
    except OSError as error:
        raise SettingsError(
            f"{path}: can't be read ({error.strerror}); expected a file of parameters"
        ) from None
    except ValueError as error:
        raise SettingsError(f"{path}: {error}") from None
    if isinstance(found, dict):
        for name, value in found.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                raise SettingsError(
                    f"{path}: {name} is the number {value} to YAML, which reads 10:40 as one number to the"
                    f" base 60; write a range in quotes, such as {name}: '10:40'"
                )
    if not isinstance(found, dict) or not all(isinstance(value, str | list) for value in found.values()):
        raise SettingsError(
            f"{path}: expected for each parameter a line such as `grpo.beta: '0.01:0.2:log'`, or a list"
        )
    return [
        f"{name}={','.join(map(_item, value)) if isinstance(value, list) else value}"
        for name, value in found.items()
    ]


def _choices(text: str, values: str) -> tuple[str, ...]:
    parts = values.split(",") if not re.search(r"""[\[{"']""", values) else _CHOICE.findall(values)
    if ",".join(parts) != values:  # of `a,[b`, say
        raise SettingsError(f"{text!r}: a bracket or quote is not closed, or a choice is empty; {_EXPECTED}")
    return tuple(dict.fromkeys(part.strip() for part in parts))


def _item(value: Any) -> str:
    """A choice of a YAML list; a text that has a comma or bracket in it stays one text."""
    if isinstance(value, list):
        return f"[{','.join(map(_item, value))}]"
    if isinstance(value, str) and re.search(r"""[,\[\]{}"']""", value):
        return json.dumps(value, ensure_ascii=False)
    return _written(value)


def _written(value: Any) -> str:
    """A value as an override has it; of a number all digits, so that the very same is tried again."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return repr(value) if isinstance(value, float) else str(value)
