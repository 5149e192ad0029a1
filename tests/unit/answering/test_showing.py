"""What a page gets of a clip."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from erv.answering.showing import MOST_FRAMES, shown
from erv.media.decode import Decoded


def clip(frames: int, audio: np.ndarray | None) -> Decoded:
    grey = np.arange(frames, dtype=np.uint8)[:, None, None, None] * np.uint8(10)
    return Decoded(np.broadcast_to(grey, (frames, 16, 16, 3)).copy(), audio)


@pytest.mark.parametrize(("frames", "expected"), [(1, [0]), (2, [0, 1]), (8, [*range(8)]), (16, None)])
def test_frames_are_spread_over_the_clip(frames: int, expected: list[int] | None) -> None:
    found = [
        round(float(np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))).mean()) / 10)
        for text in shown(clip(frames, None), 16000).frames
    ]
    assert found == expected or (len(found) == MOST_FRAMES and (found[0], found[-1]) == (0, frames - 1))
    assert expected is None or found == expected


def test_the_waveform_is_the_loudest_of_each_stretch() -> None:
    audio = np.zeros(16000, np.int16)
    audio[8000] = -32768
    seen = shown(clip(2, audio), 16000)
    assert seen.seconds == 1.0
    assert [place for place, value in enumerate(seen.waveform) if value] == [100]
    assert seen.waveform[100] == 1.0
    assert shown(clip(2, audio[:3]), 16000).waveform == (0.0, 0.0, 0.0)


def test_without_sound_there_is_none() -> None:
    for nothing in (None, np.zeros(0, np.int16)):
        seen = shown(clip(2, nothing), 16000)
        assert (seen.waveform, seen.seconds) == ((), 0.0)
