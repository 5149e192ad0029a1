"""The section `evaluate`: generation and judgement."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from erv.settings.judges import JudgeSettings
from erv.settings.section import PositiveFloat, PositiveInt, Section, Share


class EvaluateSettings(Section):
    """Generation and judgement on held-out clips."""

    split: Literal["test", "validation"]
    batch_size: PositiveInt
    max_new_tokens: PositiveInt
    temperature: Annotated[float, Field(ge=0.0)]
    samples: Annotated[int, Field(ge=0)]
    sample_temperature: PositiveFloat
    judges: tuple[JudgeSettings, ...]  # length is checked below, so that the error does not print it
    minimum_judge_accuracy: Annotated[float, Field(ge=0.0, le=1.0)]
    minimum_judge_texts: Annotated[int, Field(ge=0)]
    max_failed_share: Share
    minimum_judge_emotions: Annotated[float, Field(ge=0.0, le=1.0)]

    @model_validator(mode="after")
    def _judges_fit(self) -> EvaluateSettings:
        if not self.judges:
            raise ValueError("judges is empty; name at least one, e.g. {kind: lexical}")
        names = [judge.name for judge in self.judges]
        if len(set(names)) != len(names):
            raise ValueError(f"judges names one twice: {', '.join(names)}")
        return self
