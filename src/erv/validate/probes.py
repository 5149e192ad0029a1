"""The result of probing a clip, and the rules that probes of videos and of frame folders share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

QUIETEST_DB = -120.0
LOOKS = 5  # key frames of a video, images of a folder
THUMBNAIL = 64  # pixels; brightness is a mean, so small pictures suffice
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Probe:
    """The result of probing a clip.

    Attributes:
        fault: why the clip can't be decoded, the same on every machine; None if the probed frames decode.
        seconds: length of the video track; None for a frame folder or if the file doesn't state its rate.
        frames: pictures in the file or folder.
        fps: pictures per second; None under the same conditions as `seconds`.
        width: in pixels.
        height: in pixels.
        has_audio: whether there is a sound track with samples in it.
        audio_seconds: length of the sound track.
        brightness: mean luma of the brightest probed picture, 0..255; None if none was decoded.
        loudness_db: RMS over the whole sound track and all its channels, in dB of full scale, at least
            `QUIETEST_DB`; None without sound.
        variable_rate: whether frames are chosen by time, because the pictures come at a variable rate.
        sound_after: seconds from the first picture to the first sound; negative if the sound starts earlier.
        antiphase: whether channels cancel each other, at least for a while, so that the loudest one is taken.
        pixel_ratio: width of a pixel over its height; 1 if the file doesn't state it.
    """

    fault: str | None = None
    seconds: float | None = None
    frames: int = 0
    fps: float | None = None
    width: int = 0
    height: int = 0
    has_audio: bool = False
    audio_seconds: float = 0.0
    brightness: float | None = None
    loudness_db: float | None = None
    variable_rate: bool = False
    sound_after: float = 0.0
    antiphase: bool = False
    pixel_ratio: float = 1.0

    @property
    def decodable(self) -> bool:
        """Whether the probed frames, including the last ones, actually decode."""
        return self.fault is None

    @property
    def shorter_side(self) -> int:
        """The smaller of width and height, in pixels."""
        return min(self.width, self.height)


def luma(pixels: np.ndarray) -> float:
    """Mean luma, 0..255, of RGB pixels [H, W, 3]."""
    return float((pixels.reshape(-1, 3).mean(axis=0, dtype=np.float64) * _LUMA).sum())


def spread(items: Sequence[int], wanted: int) -> list[int]:
    """At most `wanted` of the items, evenly spread, including the first and the last."""
    if len(items) <= wanted:
        return list(items)
    return [items[round(i * (len(items) - 1) / (wanted - 1))] for i in range(wanted)]
