"""What a policy sees and hears of a clip, small enough for a page."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from erv.answering.events import Seen

if TYPE_CHECKING:
    import numpy as np

    from erv.media.decode import Decoded

MOST_FRAMES = 8
STRETCHES = 200
_QUALITY = 80  # of JPEG
_FULL_SCALE = 32768.0


def shown(seen: Decoded, rate: int) -> Seen:
    """A clip as an event.

    Args:
        seen: frames uint8 RGB [T, S, S, 3] and sound int16 mono [n], or None.
        rate: of the sound, in Hz.
    """
    count = len(seen.frames)
    chosen = sorted({round(place * (count - 1) / max(1, MOST_FRAMES - 1)) for place in range(MOST_FRAMES)})
    frames = tuple(_jpeg(seen.frames[index]) for index in chosen)
    if seen.audio is None or not len(seen.audio):
        return Seen(frames, (), 0.0)
    return Seen(frames, _loudest(seen.audio), round(len(seen.audio) / rate, 3))


def _jpeg(frame: np.ndarray) -> str:
    from PIL import Image

    target = io.BytesIO()
    Image.fromarray(frame).save(target, "JPEG", quality=_QUALITY)
    return base64.b64encode(target.getvalue()).decode()


def _loudest(audio: np.ndarray) -> tuple[float, ...]:
    import numpy as np

    level = np.abs(audio.astype(np.float32)) / _FULL_SCALE
    return tuple(round(float(part.max()), 3) for part in np.array_split(level, min(STRETCHES, len(level))))
