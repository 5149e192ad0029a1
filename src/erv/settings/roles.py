"""The section `roles`: which data sets the policies train on, and which they are tested on."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from erv.settings.ingest import DatasetName
from erv.settings.section import Section


class RolesSettings(Section):
    """Names from `datasets`, by what their clips are used for.

    Attributes:
        cold_start: the set of explanations that sft and distill learn from.
        train: data sets with the training split that grpo learns from.
        test: data sets that each policy is evaluated on, with their clips of `evaluate.split`.
    """

    cold_start: DatasetName
    train: Annotated[tuple[DatasetName, ...], Field(min_length=1)]
    test: Annotated[tuple[DatasetName, ...], Field(min_length=1)]
