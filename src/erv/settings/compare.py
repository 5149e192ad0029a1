"""The section `compare`: which variants are trained, and which policies the report compares."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from erv.settings.section import Section


class CompareSettings(Section):
    """The arms of the comparison.

    Attributes:
        train: variants, each trained by a `grpo@NAME` of its own.
        policies: in the order of the report; `sft`, or variants that are trained.
    """

    train: Annotated[tuple[str, ...], Field(min_length=1)]
    policies: Annotated[tuple[str, ...], Field(min_length=1)]
