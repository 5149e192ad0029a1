"""What every section of `params.yaml` has in common."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, lt=1.0)]
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0.0)]


def of_form(pattern: str, form: str) -> AfterValidator:
    """A constraint on a text that says in words what is expected, where pydantic would show the pattern.

    Args:
        pattern: a regular expression that the whole text matches.
        form: completes "expected ...".
    """

    def check(text: str) -> str:
        if re.fullmatch(pattern, text) is None:
            raise ValueError(f"expected {form}")
        return text

    return AfterValidator(check)


NAME_OF_A_MODEL = of_form(
    r"[A-Za-z0-9][A-Za-z0-9_.-]*", "letters, digits, `.`, `_` and `-`, the first a letter or a digit"
)


class Section(BaseModel):
    """A section of `params.yaml`: immutable, and unknown keys are faults."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def one_length(max_steps: int | None, epochs: int | None) -> None:
    """Raises `ValueError` unless exactly one of them says how long training is."""
    if (max_steps is None) == (epochs is None):
        raise ValueError("give exactly one of max_steps and epochs, and set the other to null")
