"""The section `extract`: how clips become frames and audio."""

from __future__ import annotations

from typing import Literal

from erv.settings.section import PositiveInt, Section, Share


class ExtractSettings(Section):
    """Frames, audio and shards."""

    frames: PositiveInt
    size: PositiveInt
    geometry: Literal["stretch", "pad"]
    resize: Literal["pillow", "uint8"]
    sample_rate: PositiveInt
    short_folders: Literal["repeat", "black"]
    missing_audio: Literal["quarantine", "mark", "fail"]
    clip_timeout_seconds: PositiveInt
    clip_memory_mb: PositiveInt
    clips_per_shard: PositiveInt
    max_quarantine_share: Share
