"""The section `grounding`: who compares explanations with what is known of their clips."""

from __future__ import annotations

from erv.settings.section import Section
from erv.settings.teachers import CaptionJudge


class GroundingSettings(Section):
    """Grounding of explanations.

    Attributes:
        judge: reads the captions of clips whose cues are not recorded; None for none.
    """

    judge: CaptionJudge | None
