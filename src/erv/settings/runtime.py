"""The section `runtime`: device, precision and threads, which affect results."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from erv.settings.section import PositiveInt, Section


class RuntimeSettings(Section):
    """Device, precision, and CPU threads of a stage; they affect how sums are rounded."""

    device: Literal["auto", "cpu", "cuda"]
    dtype: Literal["float32", "bfloat16", "float16"]
    threads: PositiveInt

    @model_validator(mode="after")
    def _precision_fits_the_device(self) -> RuntimeSettings:
        if self.device == "cpu" and self.dtype != "float32":
            raise ValueError(f"dtype {self.dtype} needs a GPU; with device cpu use float32")
        return self
