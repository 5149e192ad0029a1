"""No stretch of sound becomes silence because its channels cancel each other, in any layout."""

import numpy as np
import pytest
from av.stream import Disposition

from erv.media.antiphase import Balance, Stretch, gains, void_stretches
from erv.media.decode import DecodeRule, decode
from erv.validate.probing import probe
from tests.support.media import many_tracks

RULE = DecodeRule(frames=2, size=64, geometry="stretch", sample_rate=16000)
DEFAULT = int(Disposition.default)
FILM = [np.full((64, 64, 3), 100, np.uint8)] * 50
TIMES = np.arange(48000) / 16000
TONE, LOW = 0.3 * np.sin(2 * np.pi * 440 * TIMES), 0.3 * np.sin(2 * np.pi * 300 * TIMES)
ZERO = 0 * TONE
LATER = np.where(TIMES < 1.5, TONE, -TONE)
MIDDLE = np.where((TIMES > 1.03) & (TIMES < 1.52), -TONE, TONE)
NOISE = 0.1 * np.random.default_rng(0).standard_normal((6, 48000))


def written(path, layout, channels):
    voice = "pcm_f32le" if len(channels) == 2 else "aac"  # PCM keeps no layout
    sound = [(np.stack(channels), DEFAULT)]
    path.write_bytes(many_tracks("matroska", [(FILM, DEFAULT)], sound, layout=layout, voice=voice))
    return path


def quietest(sound: np.ndarray) -> float:
    """The lowest RMS of a tenth of a second, without the last one."""
    parts = sound[: len(sound) // 1600 * 1600].reshape(-1, 1600).astype(float) / 32768
    return float(np.sqrt((parts[:-1] ** 2).mean(axis=1)).min())


@pytest.mark.parametrize(
    ("layout", "channels"),
    [
        ("stereo", [TONE, -TONE]),
        ("stereo", [TONE, LATER]),
        ("stereo", [TONE, MIDDLE]),
        ("quad", [TONE, -TONE, TONE, -TONE]),
        ("quad", [TONE, -TONE, LOW, -LOW]),
        ("quad", [TONE, LATER, TONE, LATER]),
        ("5.1", [TONE, -TONE, ZERO, ZERO, ZERO, ZERO]),
        ("5.1", [TONE, LATER, ZERO, TONE, ZERO, ZERO]),  # the subwoofer is in no mix
        ("5.1", [TONE, -TONE, 0.01 * LOW, ZERO, ZERO, ZERO]),
        ("7.1", [ZERO, ZERO, ZERO, ZERO, TONE, -TONE, LOW, -LOW]),
    ],
)
def test_channels_that_cancel_leave_no_silence(tmp_path, layout, channels):
    path = written(tmp_path / "c.mkv", layout, channels)
    assert quietest(decode(path, RULE).audio) > 0.1
    assert probe(path).antiphase


def test_only_the_void_part_is_mixed_otherwise(tmp_path):
    whole = decode(written(tmp_path / "a.mkv", "stereo", [TONE, TONE]), RULE).audio
    part = decode(written(tmp_path / "b.mkv", "stereo", [TONE, LATER]), RULE).audio
    assert len(part) == len(whole)
    assert np.abs(part[:23000].astype(int) - whole[:23000]).max() <= 1
    assert np.corrcoef(part[25000:], whole[25000:])[0, 1] > 0.999


@pytest.mark.parametrize(
    ("layout", "channels"),
    [
        ("stereo", [TONE, TONE]),
        ("stereo", [TONE, ZERO]),
        ("stereo", [TONE, LOW]),
        ("stereo", [0.5 * TONE, -TONE]),
        ("stereo", list(NOISE[:2])),
        ("stereo", [1e-4 * TONE, np.where(TIMES < 1.5, 1e-4, -1e-4) * TONE]),  # far below what is heard
        ("quad", list(NOISE[:4])),
        ("5.1", list(NOISE)),
        ("5.1", [TONE, -TONE, LOW, ZERO, ZERO, ZERO]),  # the voice in the middle stays
        ("5.1", [ZERO, ZERO, ZERO, TONE, ZERO, ZERO]),
        ("7.1", [*NOISE, TONE, LOW]),
    ],
)
def test_ordinary_sound_is_mixed_as_by_ffmpeg(tmp_path, layout, channels):
    import av

    path = written(tmp_path / "c.mkv", layout, channels)
    with av.open(str(path)) as container:
        given = list(container.decode(audio=0))
        if len(channels) > 7:  # of which PyAV reads no planes
            given = [av.AudioResampler("flt", layout, 16000).resample(frame)[0] for frame in given]
        samples = np.concatenate([frame.to_ndarray() for frame in given], axis=1)
        stored = container.streams.audio[0].format.name
        if stored == "fltp" and len(channels) <= 7:
            samples = samples.T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(samples, format="flt", layout=layout)
        frame.sample_rate = 16000
        resampler = av.AudioResampler(format="flt", layout="mono", rate=16000)
        parts = [*resampler.resample(frame), *resampler.resample(None)]
    mono = np.concatenate([part.to_ndarray().reshape(-1) for part in parts])
    expected = np.round(np.clip(mono, -1, 1) * 32767).astype(np.int16)
    np.testing.assert_array_equal(decode(path, RULE).audio, expected)
    assert not probe(path).antiphase


def test_the_parts_are_found_whatever_the_pieces_are():
    samples = np.stack([TONE, MIDDLE]).astype(np.float32)
    found = []
    for size in (700, 1024, 48000):
        balance = Balance("stereo", 16000)
        for start in range(0, 48000, size):
            balance.add(samples[:, start : start + size])
        found.append(void_stretches([balance])[0])
    assert found[0] == found[1] == found[2]
    (part,) = found[0]
    assert abs(part.start - 1.05 * 16000) <= 800
    assert abs(part.end - 1.5 * 16000) <= 800


def test_a_short_piece_and_silence_have_an_answer():
    for samples, expected in ((np.zeros((2, 100)), []), (np.ones((1, 900)), []), (np.zeros((2, 0)), [])):
        balance = Balance("stereo" if len(samples) == 2 else "mono", 16000)
        balance.add(samples.astype(np.float32))
        assert void_stretches([balance]) == [expected]
    balance = Balance("stereo", 16000)
    balance.add(np.array([[0.5] * 10, [-0.5] * 10], np.float32))
    assert void_stretches([balance]) == [[Stretch(0, None, 0)]]
    assert void_stretches([]) == []


def test_the_weights_of_a_mix_are_those_of_ffmpeg():
    left, right = gains("stereo", 2)
    assert left == right > 0
    assert gains("5.1", 6)[3] == 0  # the subwoofer
    assert gains("no layout", 3).tolist() == pytest.approx([1 / 3] * 3)
