"""The section `grounding`: who compares explanations with what is known of their clips."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from erv.settings.chat import ChatEndpoint
from erv.settings.section import Section

_OF_CLIPS = ("max_frames", "max_side", "send_media")


class GroundingJudge(ChatEndpoint):
    """A model behind an endpoint that compares explanations with captions, or with the clips themselves.

    Attributes:
        shows: caption (what people wrote about the clip) | clip (its frames and its sound).
        max_frames: frames of a clip that are shown, evenly spread.
        max_side: longest side of a frame that is shown, in pixels; larger ones are scaled down.
        send_media: data sets whose clips may leave this machine, if base_url is not on it.
    """

    role: ClassVar[str] = "judge"

    kind: Literal["openai"]
    shows: Literal["caption", "clip"] = "caption"
    max_frames: Annotated[int, Field(gt=0, le=32)] = 8
    max_side: Annotated[int, Field(ge=32, le=512)] = 224
    send_media: tuple[str, ...] = ()
    max_reply_tokens: Annotated[int, Field(gt=0)] = 1024

    @model_validator(mode="after")
    def _shows_what_it_may(self) -> GroundingJudge:
        given = [name for name in _OF_CLIPS if name in self.model_fields_set]
        if self.shows == "caption" and given:
            raise ValueError(f"{', '.join(given)}: only for shows: clip; leave out, or set shows to clip")
        if self.shows == "clip" and not self.send_media and not self.on_this_machine:
            raise ValueError(
                "shows: clip would send frames and sound to a base_url that is not on this machine; name the"
                " data sets whose licences allow that in send_media (those of MAFW and DFEW don't), or serve"
                " the model here"
            )
        return self


class GroundingSettings(Section):
    """Grounding of explanations.

    Attributes:
        judge: asked about clips whose cues are not recorded; None for none.
    """

    judge: GroundingJudge | None
