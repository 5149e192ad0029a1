"""The section `controls`: what is taken away from the clips, and which policies are asked again."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from erv.settings.section import Section

ControlName = Literal["shuffled", "video_only", "sound_only", "silenced"]


class ControlsSettings(Section):
    """Evaluations with a part of the clips taken away or exchanged.

    Attributes:
        policies: policies of `compare.policies`, or none; each has its own stage `controls@NAME`.
        kinds: the controls, each of which costs as much as an evaluation.
    """

    policies: tuple[str, ...]
    kinds: Annotated[tuple[ControlName, ...], Field(min_length=1)]
