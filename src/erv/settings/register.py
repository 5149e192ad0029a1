"""The section `register`: the candidate and its gates."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from erv.settings.section import Section


class GateSettings(Section):
    """A condition for `champion`, on the lower end of an interval.

    The metric must reach the minimum; with `against`, the paired difference must exceed it.
    """

    metric: Literal["WAR", "UAR", "EEA", "EPC", "FCR"]
    minimum: float
    against: str | None = None


class RegisterSettings(Section):
    """The candidate and its gates."""

    model_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    policy: str
    gates: Annotated[tuple[GateSettings, ...], Field(min_length=1)]
