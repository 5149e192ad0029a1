"""The section `runtime`: device, precision, threads and Python, which affect results."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, model_validator

from erv.settings.section import PositiveInt, Section


def _as_text(value: Any) -> Any:
    """`dvc exp run -S runtime.python=3.13` writes a number."""
    return str(value) if isinstance(value, float) else value


class RuntimeSettings(Section):
    """Device, precision, CPU threads and Python of a stage; they affect how sums are rounded."""

    device: Literal["auto", "cpu", "cuda"]
    dtype: Literal["float32", "bfloat16", "float16"]
    threads: PositiveInt
    python: Annotated[Literal["3.11", "3.12", "3.13"], BeforeValidator(_as_text)]

    @model_validator(mode="after")
    def _precision_fits_the_device(self) -> RuntimeSettings:
        if self.device == "cpu" and self.dtype != "float32":
            raise ValueError(f"dtype {self.dtype} needs a GPU; with device cpu use float32")
        return self
