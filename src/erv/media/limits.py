"""Limits on what a file may claim, and the wording of faults.

Clips come from arbitrary sources. A small header can claim pictures of gigabytes or ten hours.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from erv.media.handed import DESCRIPTORS

MAX_SIDE = 8192  # pixels, of a video frame or an image
MAX_PIXELS = 8192 * 4320  # of a frame, which then takes 106 MB as RGB
MAX_SECONDS = 3600.0
MAX_FRAMES = 432_000  # an hour at 120 per second
MAX_CHANNELS = 64
MAX_SAMPLE_RATE = 768_000  # Hz
# decord's message prefix: the time of day and the location in its source.
_STAMP = re.compile(r"\[\d\d:\d\d:\d\d\]\s+\S+?:\d+:\s*")
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{5,}\b")
_LONGEST_REASON = 200


class MediaError(Exception):
    """A clip can't be decoded; the message becomes the reason in its quarantine entry."""


def check_size(width: int, height: int, what: str = "pictures") -> None:
    """Raises MediaError for a width and height in pixels beyond the limits."""
    if width > MAX_SIDE or height > MAX_SIDE or width * height > MAX_PIXELS:
        raise MediaError(
            f"too large: {what} of {width} x {height} pixels, at most {MAX_SIDE} a side and {MAX_PIXELS} in"
            " all are taken"
        )


def check_length(seconds: float, frames: int) -> None:
    """Raises MediaError for a length in seconds or a number of pictures beyond the limits."""
    if not math.isfinite(seconds) or seconds > MAX_SECONDS:
        raise MediaError(f"too long: {seconds:.0f} s, at most {MAX_SECONDS:.0f} s are taken")
    if frames > MAX_FRAMES:
        raise MediaError(f"too long: {frames} frames, at most {MAX_FRAMES} are taken")


def check_sound(codec: Any) -> None:
    """Raises MediaError for a sound track of PyAV whose channels or sampling rate are beyond the limits."""
    if codec is None:
        return  # no decoder; whoever reads the sound reports it
    if codec.channels > MAX_CHANNELS or (codec.sample_rate or 0) > MAX_SAMPLE_RATE:
        raise MediaError(
            f"sound of {codec.channels} channels at {codec.sample_rate} Hz, at most {MAX_CHANNELS} and"
            f" {MAX_SAMPLE_RATE} Hz are taken"
        )


def short_reason(error: BaseException, path: Path) -> str:
    """The first line of a decoder's message, without parts that differ between runs: time, address, path."""
    said = getattr(error, "strerror", None) or str(error)
    lines = [line.strip() for line in _STAMP.sub("", said).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    text = text.replace(str(path), "the file")
    if path.parent != DESCRIPTORS:
        text = text.replace(path.name, "the file")
    text = text.removeprefix("[the file]").strip()
    return _ADDRESS.sub("0x..", text)[:_LONGEST_REASON]
