"""The section `evaluate`: generation and judgement."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from erv.settings.section import PositiveFloat, PositiveInt, Section


class EvaluateSettings(Section):
    """Generation and judgement on held-out clips."""

    split: Literal["test", "validation"]
    batch_size: PositiveInt
    max_new_tokens: PositiveInt
    temperature: Annotated[float, Field(ge=0.0)]
    samples: Annotated[int, Field(ge=0)]
    sample_temperature: PositiveFloat
    judge: Literal["lexical"]
    minimum_judge_accuracy: Annotated[float, Field(ge=0.0, le=1.0)]
    minimum_judge_texts: Annotated[int, Field(ge=0)]
    minimum_judge_emotions: Annotated[float, Field(ge=0.0, le=1.0)]
