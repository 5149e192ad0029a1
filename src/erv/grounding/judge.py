"""The judge that the settings name."""

from __future__ import annotations

from pathlib import Path

from erv.grounding.claims import Checker
from erv.settings.grounding import GroundingJudge


def judge_of(settings: GroundingJudge, shards: Path) -> Checker:
    """A judge that is shown captions or clips.

    Args:
        settings: of the judge.
        shards: folder with the shards of each data set; read only if clips are shown.

    Raises:
        SettingsError: the variable of the key is not set, or does not hold a key.
    """
    if settings.shows == "clip":
        from erv.grounding.clips import ClipChecker

        return ClipChecker(settings, shards)
    from erv.grounding.captions import CaptionChecker

    return CaptionChecker(settings)
