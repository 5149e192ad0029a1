import re

import numpy as np
import pytest

from erv.data.sample_clips import encode
from erv.media import DecodeRule, MediaError, decode, probe, to_square

RULE = DecodeRule(frames=8, size=64, geometry="stretch", sample_rate=16000)


def tone(seconds, hertz=440):
    return (8000 * np.sin(2 * np.pi * hertz * np.arange(int(16000 * seconds)) / 16000)).astype(np.int16)


def movie(count=24, height=96, width=160):
    """Frames whose brightness tells their number."""
    return [np.full((height, width, 3), 40 + 6 * index, np.uint8) for index in range(count)]


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "c.mp4"
    path.write_bytes(encode(movie(), tone(2.0)))
    return path


def test_the_right_frames_and_the_whole_sound(clip):
    decoded = decode(clip, RULE)
    assert decoded.frames.shape == (8, 64, 64, 3)
    numbers = np.round((decoded.frames.mean(axis=(1, 2, 3)) - 40) / 6).astype(int)
    np.testing.assert_array_equal(numbers, [1, 4, 7, 10, 13, 16, 19, 22])
    assert decoded.audio.dtype == np.int16
    assert abs(len(decoded.audio) - 32000) < 2500
    spectrum = np.abs(np.fft.rfft(decoded.audio[2000:30000]))
    assert abs(np.fft.rfftfreq(28000, 1 / 16000)[spectrum.argmax()] - 440) < 3


def test_a_clip_without_sound_has_none(tmp_path):
    path = tmp_path / "silent.mp4"
    path.write_bytes(encode(movie(), None))
    assert decode(path, RULE).audio is None
    assert probe(path).has_audio is False
    assert probe(path).fault is None


def test_a_probe_agrees_with_the_file(clip):
    found = probe(clip)
    assert (found.frames, found.width, found.height, found.has_audio, found.fault) == (
        24,
        160,
        96,
        True,
        None,
    )
    assert found.seconds == pytest.approx(2.0)


@pytest.mark.parametrize("damage", ["empty", "noise", "cut"])
def test_a_damaged_file_says_what_is_wrong_without_its_path(clip, damage):
    content = clip.read_bytes()
    clip.write_bytes(
        {"empty": b"", "noise": bytes(range(256)) * 40, "cut": content[: len(content) // 2]}[damage]
    )
    with pytest.raises(MediaError) as caught:
        decode(clip, RULE)
    assert str(clip) not in str(caught.value)
    found = probe(clip)
    assert found.fault
    assert str(clip.parent) not in found.fault


def test_damage_in_the_middle_is_a_reason_too_and_tells_no_time(clip):
    content = bytearray(clip.read_bytes())
    third = len(content) // 3
    content[third : 2 * third] = bytes(third)
    clip.write_bytes(bytes(content))
    with pytest.raises(MediaError) as caught:
        decode(clip, RULE)
    assert not re.search(r"\d\d:\d\d:\d\d|\.cc:\d", str(caught.value))


def test_padding_centres_on_grey_and_stretching_fills():
    frames = np.full((1, 20, 40, 3), 200, np.uint8)
    padded = to_square(frames, 40, "pad")[0]
    assert (padded[0] == 127).all()
    assert (padded[-1] == 127).all()
    assert (padded[20] == 200).all()
    assert (to_square(frames, 40, "stretch") == 200).all()
