"""The section `train_erv`: the verifier."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from erv.settings.section import PositiveFloat, PositiveInt, Section


class TrainErvSettings(Section):
    """The Emotional Rationale Verifier."""

    max_steps: Annotated[int, Field(ge=0)]
    batch_size: PositiveInt
    learning_rate: PositiveFloat
    max_length: PositiveInt
    eval_steps: PositiveInt
    patience: PositiveInt | None
    class_weights: Literal["none", "balanced"]
    calibration: Literal["none", "temperature", "isotonic"]
    thresholds: Literal["tuned"] | float
    minimum_f1: Annotated[float, Field(ge=0.0, le=1.0)]
    minimum_labels: Annotated[float, Field(ge=0.0, le=1.0)]

    @field_validator("thresholds", mode="before")
    @classmethod
    def _tuned_or_a_share(cls, value: Any) -> Any:
        if value == "tuned" or (isinstance(value, int | float) and 0.0 < value < 1.0):
            return value
        raise ValueError("expected tuned, or one number between 0 and 1")

    @model_validator(mode="after")
    def _evaluated_before_the_end(self) -> TrainErvSettings:
        if 0 < self.max_steps < self.eval_steps:
            raise ValueError(
                f"eval_steps ({self.eval_steps}) must not exceed max_steps ({self.max_steps}): nothing would"
                " be evaluated or saved"
            )
        return self
