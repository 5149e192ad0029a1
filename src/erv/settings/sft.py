"""The section `sft`: the cold start."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from erv.settings.lora import LoraSettings
from erv.settings.section import PositiveFloat, PositiveInt, Section, Share, one_length


class SftSettings(Section):
    """Cold-start supervised fine-tuning; with `max_steps` 0 the base is the cold start as it is."""

    max_steps: Annotated[int, Field(ge=0)] | None
    epochs: PositiveInt | None
    batch_size: PositiveInt
    packing: bool
    gradient_checkpointing: bool
    learning_rate: PositiveFloat
    warmup_share: Share
    weight_decay: Annotated[float, Field(ge=0.0)]
    max_grad_norm: PositiveFloat
    lora: LoraSettings

    @model_validator(mode="after")
    def _has_a_length(self) -> SftSettings:
        one_length(self.max_steps, self.epochs)
        return self
