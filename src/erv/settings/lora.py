"""Adapters, a part of the sections `sft` and `grpo`."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from erv.settings.section import PositiveInt, Section, Share


class LoraSettings(Section):
    """Adapters through PEFT; `quantize: nf4` stores the frozen base in four bits (QLoRA)."""

    enabled: bool
    rank: PositiveInt
    alpha: PositiveInt
    dropout: Share
    quantize: Literal["none", "nf4"]

    @model_validator(mode="after")
    def _only_adapters_train_on_four_bits(self) -> LoraSettings:
        if self.quantize != "none" and not self.enabled:
            raise ValueError(f"quantize is {self.quantize}, which trains adapters only; set enabled: true")
        return self
