"""What a judge is shown of a clip: frames as JPEG, sound as WAV, as parts of a chat message."""

from __future__ import annotations

import base64
import io
import wave
from typing import Any

import numpy as np

from erv.shards import Clip, hears

_QUALITY = 90


def frame_parts(clip: Clip, most: int, side: int) -> list[dict[str, Any]]:
    """Frames of a clip as image parts, evenly spread and in order.

    Args:
        clip: with frames uint8 RGB [T, H, W, 3].
        most: number of frames, at most.
        side: longest side, in pixels; larger frames are scaled down, smaller ones stay as they are.
    """
    count = min(most, len(clip.frames))
    picks = np.linspace(0, len(clip.frames) - 1, count).round().astype(int)
    return [_frame_part(clip.frames[index], side) for index in picks]


def sound_parts(clip: Clip) -> list[dict[str, Any]]:
    """All of a clip's sound as one audio part, int16 mono at the rate of the shard; none without sound.

    Raises:
        DataError: the sound was lost on the way, see `erv.shards.hears`.
    """
    if not hears(clip):
        return []
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(clip.sample_rate)
        file.writeframes(clip.audio.astype("<i2", copy=False).tobytes())
    return [{"type": "input_audio", "input_audio": {"data": _base64(buffer), "format": "wav"}}]


def _frame_part(frame: np.ndarray, side: int) -> dict[str, Any]:
    from PIL import Image

    image = Image.fromarray(frame)
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=_QUALITY)
    return {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{_base64(buffer)}"}}


def _base64(buffer: io.BytesIO) -> str:
    return base64.b64encode(buffer.getvalue()).decode("ascii")
