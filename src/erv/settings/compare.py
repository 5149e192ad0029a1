"""The section `compare`: which variants are trained, and which policies the report compares."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from erv.settings.section import Section


class CompareSettings(Section):
    """The arms of the comparison.

    Attributes:
        train: variants, each trained by its own stage `grpo@NAME`.
        policies: `sft` and trained variants, in the order of the report.
    """

    train: Annotated[tuple[str, ...], Field(min_length=1)]
    policies: Annotated[tuple[str, ...], Field(min_length=1)]
