"""The sections of `params.yaml` that make the verifier: `distill` and `train_erv`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from erv.settings.section import PositiveFloat, PositiveInt, Section, Share
from erv.settings.teachers import TeacherSettings


class RolloutSettings(Section):
    """Explanations that the cold start samples on the clips of the reasoning set."""

    per_clip: Annotated[int, Field(ge=0)]
    temperature: PositiveFloat
    max_new_tokens: PositiveInt
    batch_size: PositiveInt


class DistillSettings(Section):
    """Sentence labels for the verifier."""

    teachers: tuple[TeacherSettings, ...]  # its length is checked below, where what it holds is not shown
    rollouts: RolloutSettings
    max_quarantine_share: Share
    validation_share: Annotated[float, Field(gt=0.0, lt=0.5)]
    test_share: Annotated[float, Field(gt=0.0, lt=0.5)]

    @model_validator(mode="after")
    def _teachers_fit(self) -> DistillSettings:
        if not self.teachers:
            raise ValueError("teachers is empty; name at least one, e.g. {kind: reference}")
        names = [teacher.name for teacher in self.teachers]
        if len(set(names)) != len(names):
            raise ValueError(f"teachers names one twice: {', '.join(names)}")
        if self.rollouts.per_clip and "reference" in names:
            raise ValueError(
                "rollouts.per_clip needs teachers that read, openai or local; reference labels only the"
                " sentences of the corpus"
            )
        return self


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
