"""The section `roles`: which data sets the policies train on, and which they are tested on."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator

from erv.settings.ingest import DatasetName
from erv.settings.section import Section


class RolesSettings(Section):
    """Names from `datasets`, by what their clips are used for.

    Attributes:
        cold_start: the set of explanations that sft and distill learn from; without one, the data set whose
            clips the cold start explains.
        train: data sets with the training split that grpo learns from.
        test: data sets that each policy is evaluated on, with their clips of `evaluate.split`.
    """

    cold_start: DatasetName
    train: Annotated[tuple[DatasetName, ...], Field(min_length=1)]
    test: Annotated[tuple[DatasetName, ...], Field(min_length=1)]

    @field_validator("cold_start", mode="before")
    @classmethod
    def _not_nothing(cls, value: Any) -> Any:
        if value is None:
            raise ValueError(
                "expected a data set (without a reasoning set, one of roles.train whose clips the cold start"
                " explains: docs/data.md)"
            )
        return value
