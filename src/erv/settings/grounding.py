"""The section `grounding`: who compares explanations with what is known of their clips."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from erv.settings.chat import ChatEndpoint
from erv.settings.section import Section


class CaptionJudge(ChatEndpoint):
    """A model behind an endpoint that compares explanations with captions."""

    role: ClassVar[str] = "judge"

    kind: Literal["openai"]
    max_reply_tokens: Annotated[int, Field(gt=0)] = 1024


class GroundingSettings(Section):
    """Grounding of explanations.

    Attributes:
        judge: reads the captions of clips whose cues are not recorded; None for none.
    """

    judge: CaptionJudge | None
