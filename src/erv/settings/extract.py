"""The section `extract`: how clips become frames and audio."""

from __future__ import annotations

from typing import Literal

from erv.settings.section import PositiveInt, Section, Share

MissingAudio = Literal["quarantine", "mark", "fail"]


class DecodingSettings(Section):
    """What a clip becomes; a version keeps these for the clips that it is asked about."""

    frames: PositiveInt
    size: PositiveInt
    geometry: Literal["stretch", "pad"]
    resize: Literal["pillow", "uint8"]
    sample_rate: PositiveInt


class ExtractSettings(DecodingSettings):
    """Frames, audio and shards."""

    short_folders: Literal["repeat", "black"]
    missing_audio: MissingAudio
    clip_timeout_seconds: PositiveInt
    clip_memory_mb: PositiveInt
    clips_per_shard: PositiveInt
    max_quarantine_share: Share
