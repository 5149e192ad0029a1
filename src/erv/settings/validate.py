"""The section `validate`: requirements for a manifest and its media."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from erv.settings.section import PositiveFloat, PositiveInt, Section, Share


class ClipLimits(Section):
    """What a clip must be like; a version keeps these, too."""

    min_seconds: PositiveFloat
    max_seconds: PositiveFloat
    min_fps: PositiveFloat
    min_side: PositiveInt
    min_brightness: Annotated[float, Field(ge=0.0, le=255.0)]
    min_loudness_db: Annotated[float, Field(le=0.0)]

    @model_validator(mode="after")
    def _ordered(self) -> ClipLimits:
        if self.min_seconds >= self.max_seconds:
            raise ValueError(
                f"min_seconds ({self.min_seconds}) must be smaller than max_seconds ({self.max_seconds})"
            )
        return self


class ValidateSettings(ClipLimits):
    """Limits for the manifest and the probed media."""

    max_failed_share: Share
    duplicates: Literal["fail", "warn"]
    clip_timeout_seconds: PositiveInt
    clip_memory_mb: PositiveInt
