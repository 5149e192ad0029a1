"""The section `leakage`: when two clips are the same, and what becomes of one that is in two splits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from erv.settings.section import Section

Correlation = Annotated[float, Field(gt=0.0, le=1.0)]


class LeakageSettings(Section):
    """The comparison of clips across data sets and splits.

    Attributes:
        action: what to do about a clip that is trained or tuned on and equals one of a later use.
        frames: smallest correlation of the frames of two clips that are the same.
        sound: smallest correlation of their sound.
        frames_alone: smallest correlation of the frames if one of them has no sound.
    """

    action: Literal["fail", "exclude", "warn"]
    frames: Correlation
    sound: Correlation
    frames_alone: Correlation

    @model_validator(mode="after")
    def _stricter_alone(self) -> LeakageSettings:
        if self.frames_alone < self.frames:
            raise ValueError(
                f"frames_alone ({self.frames_alone}) must not be smaller than frames ({self.frames})"
            )
        return self
