"""What every section of `params.yaml` has in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, lt=1.0)]
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0.0)]


class Section(BaseModel):
    """A section of `params.yaml`: immutable, and unknown keys are faults."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def one_length(max_steps: int | None, epochs: int | None) -> None:
    """Raises `ValueError` unless exactly one of them says how long training is."""
    if (max_steps is None) == (epochs is None):
        raise ValueError("give exactly one of max_steps and epochs, and set the other to null")
