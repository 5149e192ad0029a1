"""A file of several tracks is read as a player shows it: one choice of film and voice, for every reader."""

import numpy as np
import pytest
from av.stream import Disposition

from erv.media.decode import DecodeRule, MediaError, decode
from erv.media.header import read_header
from erv.validate.probing import probe
from tests.support.clips import picture_numbers
from tests.support.media import many_tracks

RULE = DecodeRule(frames=8, size=64, geometry="stretch", sample_rate=16000)
PAD = DecodeRule(frames=8, size=64, geometry="pad", sample_rate=16000)
NONE, DEFAULT = 0, int(Disposition.default)
COVER = int(Disposition.attached_pic)
BLIND = int(Disposition.visual_impaired)  # a voice describes the pictures
FILM = [np.full((96, 160, 3), 20 + 4 * number, np.uint8) for number in range(50)]
DECOY = [np.full((64, 64, 3), 250, np.uint8)] * 10
TIMES = np.arange(32000) / 16000
VOICE = np.stack([0.25 * np.sin(2 * np.pi * 440 * TIMES)] * 2)
OTHER = np.stack([0.25 * np.sin(2 * np.pi * 1000 * TIMES)] * 2)
SILENCE = np.zeros((2, 32000))


def hertz(sound: np.ndarray) -> float:
    part = sound[4000:20000]
    assert np.abs(part).max() > 5000
    return float(np.fft.rfftfreq(len(part), 1 / 16000)[np.abs(np.fft.rfft(part)).argmax()])


@pytest.mark.parametrize(
    ("form", "codec", "rule", "last"),
    [
        ("mp4", "libx264", RULE, True),
        ("mp4", "libx264", RULE, False),
        ("matroska", "libx264", PAD, True),
        ("mov", "mpeg4", RULE, True),
    ],
)
def test_the_tracks_that_are_marked_are_the_film_and_the_voice(tmp_path, form, codec, rule, last):
    films, voices = [(DECOY, NONE), (FILM, DEFAULT)], [(SILENCE, NONE), (VOICE, DEFAULT)]
    if not last:
        films, voices = films[::-1], voices[::-1]
    path = tmp_path / "c"
    path.write_bytes(many_tracks(form, films, voices, codec=codec))
    alone = tmp_path / "alone"
    alone.write_bytes(many_tracks(form, [(FILM, DEFAULT)], [(VOICE, DEFAULT)], codec=codec))
    clip, expected = decode(path, rule), decode(alone, rule)
    np.testing.assert_array_equal(clip.frames, expected.frames)
    np.testing.assert_array_equal(clip.audio, expected.audio)
    look, other = probe(path), probe(alone)
    assert look == other
    assert (look.width, look.frames) == (160, 50)
    assert look.loudness_db > -20


@pytest.mark.parametrize(
    ("form", "codec", "voice"),
    [("mp4", "libx264", "aac"), ("matroska", "libx264", "aac"), ("mpegts", "mpeg2video", "mp2")],
)
def test_without_marks_every_reader_takes_what_ffmpeg_calls_best(tmp_path, form, codec, voice):
    import av

    path = tmp_path / "c"
    films = [([np.full((64, 64, 3), 250, np.uint8)], NONE), (FILM, NONE)]
    path.write_bytes(many_tracks(form, films, [(OTHER, NONE), (VOICE, NONE)], codec=codec, voice=voice))
    with av.open(str(path)) as container:
        film, sound = container.streams.best("video"), container.streams.best("audio")
        header = read_header(path)
        assert (header.film, header.voice) == (film.index, sound.index)
        width, number = film.width, sound.index - 2
    clip, look = decode(path, RULE), probe(path)
    assert look.fault is None
    assert look.width == width
    assert (clip.frames.mean() > 240) == (width == 64)
    assert hertz(clip.audio) == pytest.approx([1000, 440][number], abs=2)


def test_a_cover_is_no_film(tmp_path):
    path = tmp_path / "c.mp4"
    path.write_bytes(many_tracks("mp4", [(DECOY[:1], COVER), (FILM, DEFAULT)], [(VOICE, DEFAULT)]))
    assert picture_numbers(decode(path, RULE).frames)[0] < 6
    assert probe(path).width == 160
    path.write_bytes(many_tracks("mp4", [(DECOY[:1], COVER)], [(VOICE, DEFAULT)]))
    with pytest.raises(MediaError, match="no video track"):
        decode(path, RULE)
    assert probe(path).fault == "no video track"


def test_a_description_for_the_blind_is_not_the_voice(tmp_path):
    path = tmp_path / "c.mkv"
    path.write_bytes(many_tracks("matroska", [(FILM, DEFAULT)], [(OTHER, BLIND), (VOICE, NONE)]))
    assert hertz(decode(path, RULE).audio) == pytest.approx(440, abs=2)
