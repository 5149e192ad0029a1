"""Clips are read as a player shows them: by time, sound in step, both channels, pixels of any shape."""

import struct
from fractions import Fraction

import numpy as np
import pytest

from erv.media.decode import DecodeRule, MediaError, decode, frame_indices
from erv.media.sound import read_sound
from erv.media.timing import Times, chosen_frames
from erv.validate.probing import probe
from tests.fuzz.mutations import boxes
from tests.support.clips import picture_numbers, trimmed
from tests.support.media import timed_clip

RULE = DecodeRule(frames=8, size=64, geometry="stretch", sample_rate=16000)
PAD = DecodeRule(frames=8, size=64, geometry="pad", sample_rate=16000)
SLOW_THEN_FAST = [0.0, 0.5, 1.0, 1.5, *(2 + n / 30 for n in range(30))]


def wave(seconds: float, hertz: float = 440) -> np.ndarray:
    return (0.25 * np.sin(2 * np.pi * hertz * np.arange(round(44100 * seconds)) / 44100)).astype(np.float32)


def write(path, content):
    path.write_bytes(content)
    return path


def loud(sound: np.ndarray) -> tuple[float, float]:
    """When a sound begins and ends, in seconds."""
    places = np.flatnonzero(np.abs(sound) > 1500)
    return places[0] / 16000, places[-1] / 16000


@pytest.mark.parametrize(
    ("suffix", "form", "codec"),
    [
        ("mp4", "mp4", "libx264"),  # by number, with decord
        ("mkv", "matroska", "libx264"),
        ("mp4", "mp4", "mpeg4"),  # from the start
        ("ts", "mpegts", "libx264"),
        ("flv", "flv", "libx264"),
    ],
)
def test_frames_are_spread_over_the_time_of_a_clip(tmp_path, suffix, form, codec):
    """2 of 3 seconds show 4 pictures: 5 of 8 frames come from there, where choosing by number takes 1."""
    starts = [*SLOW_THEN_FAST]
    path = write(tmp_path / f"c.{suffix}", timed_clip(starts, form=form, codec=codec))
    found = picture_numbers(decode(path, RULE).frames)
    times = 3 * (np.arange(8) + 0.5) / 8
    expected = [int(np.searchsorted(starts, time, side="right")) - 1 for time in times]
    assert sum(number < 4 for number in expected) == 5
    assert np.abs(np.array(found) - expected).max() <= 1
    assert sum(number < 4 for number in found) == 5
    look = probe(path)
    assert (look.fault, look.variable_rate) == (None, True)
    assert look.seconds == pytest.approx(3.0, abs=0.1)


def test_a_picture_that_stays_at_the_end_counts_for_its_time(tmp_path):
    starts = [n / 25 for n in range(25)]
    path = write(tmp_path / "c.mp4", timed_clip(starts, last=2.04))
    assert probe(path).seconds == pytest.approx(3.0, abs=0.05)
    assert picture_numbers(decode(path, RULE).frames)[3:] == [24] * 5


def test_frames_of_a_trimmed_clip_are_chosen_by_time(tmp_path):
    content = timed_clip(SLOW_THEN_FAST)
    path = write(tmp_path / "c.mp4", trimmed(content, (1.0, 1.5)))
    found = picture_numbers(decode(path, RULE).frames)
    assert sum(number < 4 for number in found) in (5, 6)  # two of its three half seconds
    assert probe(path).variable_rate


@pytest.mark.parametrize("count", [1, 2, 3, 7, 24, 25, 250, 999])
@pytest.mark.parametrize("rate", [10.0, 24000 / 1001, 25.0, 30000 / 1001, 60.0])
def test_at_a_constant_rate_frames_are_those_of_the_released_code(count, rate):
    exact = np.arange(count) / rate
    for starts in (exact, np.round(exact, 3), np.floor(exact * 90000) / 90000):
        times = Times.of(starts.tolist(), 1 / rate)
        assert times.regular
        assert chosen_frames(count, times, 8) == frame_indices(count, 8).tolist()


def test_times_that_are_not_known_leave_the_choice_by_number():
    assert Times.of([], 0.0) is None
    assert Times.of([0.0, None], 0.0) is None
    assert chosen_frames(3, Times.of([0.0, 5.0], 0.0), 8) == frame_indices(3, 8).tolist()
    assert chosen_frames(3, Times.of([0.0, 0.0, 0.0], 0.0), 8) == frame_indices(3, 8).tolist()
    assert chosen_frames(4, Times.of([3.0, 0.0, 1.0, 9.0], 1.0), 2) == [1, 2]


@pytest.mark.parametrize(
    ("suffix", "form"), [("mp4", "mp4"), ("mkv", "matroska"), ("ts", "mpegts"), ("flv", "flv")]
)
def test_sound_that_starts_late_stays_late(tmp_path, suffix, form):
    starts = [n / 25 for n in range(75)]
    content = timed_clip(starts, form=form, sound=wave(1.0)[None], sound_at=1.0)
    path = write(tmp_path / f"c.{suffix}", content)
    begin, end = loud(decode(path, RULE).audio)
    assert begin == pytest.approx(1.0, abs=0.06)  # AAC begins with up to 1024 samples of silence
    assert end == pytest.approx(2.0, abs=0.06)
    look = probe(path)
    assert look.fault is None
    assert look.sound_after == pytest.approx(1.0, abs=0.06)


def test_sound_from_before_the_first_picture_is_left_out(tmp_path):
    starts = [0.5 + n / 25 for n in range(50)]
    voice = np.concatenate([wave(0.5, 440), wave(1.5, 1000)])
    path = write(tmp_path / "c.mkv", timed_clip(starts, form="matroska", sound=voice[None]))
    sound = decode(path, RULE).audio
    assert len(sound) == pytest.approx(1.5 * 16000, abs=800)
    spectrum = np.abs(np.fft.rfft(sound[:4000]))
    assert np.fft.rfftfreq(4000, 1 / 16000)[spectrum.argmax()] == pytest.approx(1000, abs=8)
    assert probe(path).sound_after == pytest.approx(-0.5, abs=0.05)


def test_a_gap_in_the_sound_stays_a_gap(tmp_path):
    import av

    path, starts = tmp_path / "c.mkv", [n / 25 for n in range(75)]
    content = timed_clip(starts, form="matroska", sound=wave(3.0)[None], voice="pcm_s16le")
    write(tmp_path / "whole.mkv", content)
    with av.open(str(tmp_path / "whole.mkv")) as given, av.open(str(path), "w") as out:
        tracks = {stream.index: out.add_stream_from_template(stream) for stream in given.streams}
        for packet in given.demux():
            if packet.dts is None or (
                packet.stream.type == "audio" and 1.0 < packet.pts * packet.time_base < 2.0
            ):
                continue
            packet.stream = tracks[packet.stream.index]
            out.mux(packet)
    sound = decode(path, RULE).audio
    assert len(sound) == pytest.approx(3 * 16000, abs=200)
    assert np.abs(sound[20000:28000]).max() == 0
    assert np.abs(sound[36000:44000]).max() > 7000


def test_times_that_no_clip_has_are_a_reason(tmp_path):
    path = write(tmp_path / "c.mkv", timed_clip([0.0, 0.04], form="matroska", sound=wave(0.1)[None]))
    with pytest.raises(MediaError, match="sound starts 5000 s after the pictures"):
        read_sound(path, "matroska", 1, 16000, -5000.0)


@pytest.mark.parametrize("voice", ["pcm_s16le", "aac"])
def test_channels_in_antiphase_are_no_silence(tmp_path, voice):
    starts = [n / 25 for n in range(25)]
    stereo = np.stack([0.5 * wave(1.0), -wave(1.0)])
    half = write(tmp_path / "half.mov", timed_clip(starts, form="mov", sound=stereo, voice=voice))
    assert not probe(half).antiphase  # half of it is left
    path = write(
        tmp_path / "c.mov",
        timed_clip(starts, form="mov", sound=np.stack([wave(1.0), -wave(1.0)]), voice=voice),
    )
    sound = decode(path, RULE).audio
    assert np.abs(sound[2000:14000]).max() == pytest.approx(0.25 * 32767, rel=0.1)
    assert probe(path).antiphase
    same = write(
        tmp_path / "same.mov", timed_clip(starts, form="mov", sound=np.stack([wave(1.0)] * 2), voice=voice)
    )
    assert not probe(same).antiphase
    middle = decode(same, RULE).audio[2000:14000]
    assert np.corrcoef(middle, sound[2000:14000])[0, 1] > 0.999


def test_silence_stays_silence(tmp_path):
    starts = [n / 25 for n in range(25)]
    path = write(tmp_path / "c.mov", timed_clip(starts, sound=np.zeros((2, 44100), np.float32), form="mov"))
    assert not decode(path, RULE).audio.any()
    assert not probe(path).antiphase


def circle(height: int, width: int) -> np.ndarray:
    """A bright ellipse that fills the picture: a circle once pixels have their shape."""
    rows, columns = np.mgrid[:height, :width]
    inside = ((rows - height / 2) / (height / 2)) ** 2 + ((columns - width / 2) / (width / 2)) ** 2 < 0.9
    return np.repeat(np.where(inside, 230, 20).astype(np.uint8)[:, :, None], 3, axis=2)


@pytest.mark.parametrize(
    ("suffix", "form", "codec", "remove"),
    [
        ("mp4", "mp4", "libx264", False),
        ("mp4", "mp4", "libx264", True),  # only the pictures themselves say it
        ("mkv", "matroska", "libx264", False),
        ("ts", "mpegts", "libx264", False),
    ],
)
@pytest.mark.parametrize(("height", "width", "pixel"), [(120, 80, Fraction(3, 2)), (80, 120, Fraction(2, 3))])
def test_pixels_have_their_shape_when_padded(tmp_path, suffix, form, codec, remove, height, width, pixel):
    content = timed_clip(
        [n / 25 for n in range(10)], form=form, codec=codec, pixel=pixel, picture=circle(height, width)
    )
    path = write(tmp_path / f"c.{suffix}", content.replace(b"pasp", b"free") if remove else content)
    square = decode(path, PAD).frames[0].mean(axis=2)
    expected = circle(64, 64).mean(axis=2)
    assert np.abs(square - expected).mean() < 8  # 120 x 120 as shown: no grey anywhere
    if not remove:
        look = probe(path)
        assert (look.fault, look.pixel_ratio) == (None, pytest.approx(float(pixel), abs=0.01))
    stretched = decode(path, RULE).frames[0].mean(axis=2)
    assert np.abs(stretched - expected).mean() < 8  # stretching fills the square in any case


def test_pixels_of_a_turned_picture_have_their_turned_shape(tmp_path):
    content = timed_clip([n / 25 for n in range(10)], pixel=Fraction(3, 2), picture=circle(120, 80))
    (at,) = [position + 48 for kind, position, _ in boxes(content) if kind == b"tkhd"]
    matrix = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    path = write(tmp_path / "c.mp4", content[:at] + matrix + content[at + 36 :])
    square = decode(path, PAD).frames[0].mean(axis=2)
    assert np.abs(square - circle(64, 64).mean(axis=2)).mean() < 8


def test_square_pixels_are_padded_as_ever(tmp_path):
    content = timed_clip([n / 25 for n in range(10)], picture=circle(80, 120))
    square = decode(write(tmp_path / "c.mp4", content), PAD).frames[0]
    assert np.abs(square[2].astype(int) - 127).max() <= 1
    assert np.abs(square[-3].astype(int) - 127).max() <= 1
