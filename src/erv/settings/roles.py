"""The section `roles`: which data sets train the policies, and which test them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from erv.settings.ingest import DatasetName
from erv.settings.section import Section


class RolesSettings(Section):
    """Names of `datasets`, by what their clips are for.

    Attributes:
        cold_start: the set of explanations that sft and distill learn from.
        train: grpo trains on their training split.
        test: evaluate asks each policy about the clips of `evaluate.split` in these.
    """

    cold_start: DatasetName
    train: Annotated[tuple[DatasetName, ...], Field(min_length=1)]
    test: Annotated[tuple[DatasetName, ...], Field(min_length=1)]
