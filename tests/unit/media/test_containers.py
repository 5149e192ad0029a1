"""One list of beginnings decides what a file is; a file that names others is read by no decoder."""

import os
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from erv.extract.extract import extract
from erv.media.containers import container_of, decord_agrees
from erv.media.decode import DecodeRule, decode
from erv.media.handed import HasFiles
from erv.media.limits import MediaError
from erv.media.workers import isolated
from erv.validate.probing import probe_clips
from tests.support.clips import CONTAINERS, clip_bytes, numbered_clip, pinned, settings, tone
from tests.support.media import Task, playlist_before
from tests.support.verdicts import SETTINGS

RULE = DecodeRule(frames=8, size=64, geometry="stretch", sample_rate=16000)
EXPECTED = {"ipod": "mov", "mp4": "mov", "webm": "matroska", "vob": "mpeg"}


def likeness(sound: np.ndarray, other: np.ndarray) -> float:
    """Largest correlation of two sounds over small shifts."""
    length = min(len(sound), len(other)) - 400
    middle = other[200 : 200 + length].astype(float)
    return max(
        abs(np.corrcoef(sound[shift : shift + length].astype(float), middle)[0, 1])
        for shift in range(0, 400, 2)
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="SVT-AV1 asks for real time on Linux")
def test_encoding_clips_leaves_the_scheduling_of_the_tests_alone():
    before = os.sched_getscheduler(0)
    numbered_clip(2, video="libsvtav1")
    assert os.sched_getscheduler(0) == before


@pytest.fixture
def attack(tmp_path):
    """A transport stream with a playlist in front that names a file with another sound."""
    secret, source = tmp_path / "secret.ts", tmp_path / "source"
    secret.write_bytes(numbered_clip(form="mpegts", video="mpeg2video", sound="mp2"))
    source.mkdir()
    own = numbered_clip(form="mpegts", video="mpeg2video", sound=None)
    (source / "evil.mpg").write_bytes(playlist_before(own, secret))
    return source, tone(2.0)


def heard_by_decord(task: HasFiles) -> np.ndarray:
    """What decord's older FFmpeg makes of a file, without any check of ours."""
    import decord

    wave = decord.AudioReader(str(task.files[0]), ctx=decord.cpu(0), sample_rate=16000, mono=True)
    return wave[:].asnumpy().reshape(-1)


def load_decord() -> None:
    import decord  # noqa: F401


def test_the_attack_is_one(attack):
    """Without check and confinement, decord reads the other file; if not, the tests below test nothing."""
    source, secret = attack
    assert likeness(heard_by_decord(Task((source / "evil.mpg",))), secret) > 0.9


def test_no_worker_reads_the_file_that_a_playlist_names(attack):
    from erv.media.confinement import tried

    source, secret = attack
    (outcome,) = isolated(
        heard_by_decord,
        [Task((source / "evil.mpg",))],
        workers=1,
        seconds=30,
        prepare=load_decord,
        expected=(Exception,),
        confined=True,
    )
    if tried().files:
        assert outcome.failure is not None
    elif outcome.result is not None:
        assert likeness(outcome.result, secret) > 0.9  # nothing but the check of the beginning is left


def test_a_stream_with_a_playlist_in_front_is_quarantined(attack, tmp_path):
    source, _ = attack
    (source / "good.mp4").write_bytes(clip_bytes())
    with pytest.raises(MediaError, match="a playlist"):
        decode(source / "evil.mpg", RULE)
    rows, lock = pinned(source)
    found = probe_clips(rows, lock, None, SETTINGS, workers=1)
    assert "a playlist" in found["evil"].fault
    assert found["good"].fault is None
    given = settings(max_quarantine_share=0.9)
    result = extract(rows, lock, None, given, tmp_path / "s", tmp_path / "q.parquet", workers=1)
    assert (result.extracted, result.quarantined) == (1, 1)
    (entry,) = pq.read_table(tmp_path / "q.parquet").to_pylist()
    assert entry["clip_id"] == "evil"
    assert "a playlist" in entry["reason"]


@pytest.mark.parametrize(
    "text",
    [
        b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n/etc/hostname\n",
        b"\xef\xbb\xbf\n #extm3u\n",
        b"ffconcat version 1.0\nfile /etc/hostname\n",
        b"<?xml version='1.0'?><MPD profiles='urn:mpeg:dash:profile:isoff-live:2011'></MPD>",
        b"[playlist]\nFile1=/etc/hostname\n",
        b"v=0\r\nc=IN IP4 127.0.0.1\r\nm=video 5000 RTP/AVP 96\r\n",
    ],
)
@pytest.mark.parametrize("form", ["mpegts", "mp4", None])
def test_a_text_that_names_files_is_refused_whatever_follows(tmp_path, text, form):
    clips = {"mpegts": numbered_clip(10, form="mpegts", video="mpeg2video", sound="mp2"), "mp4": clip_bytes()}
    path = tmp_path / "c.mpg"
    path.write_bytes(text + clips.get(form, b""))
    with pytest.raises(MediaError, match="container can't be read: "):
        decode(path, RULE)


def test_a_playlist_that_is_a_transport_stream_as_well(tmp_path):
    """A `G` every 188 bytes is what the reader of transport streams looks for."""
    line = b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n/etc/hostname\n#"
    packet = b"G".ljust(188, b"#")
    path = tmp_path / "c.ts"
    path.write_bytes(line.ljust(188, b"#") + packet * 40)
    with pytest.raises(MediaError, match="a playlist"):
        container_of(path)


@pytest.mark.parametrize(
    ("suffix", "form", "codec", "sound"),
    [entry for entry in CONTAINERS if entry[2] not in ("libx265", "libsvtav1", "libvpx-vp9")],
)
def test_every_container_is_known_by_its_beginning(tmp_path, suffix, form, codec, sound):
    path = tmp_path / f"1.{suffix}"
    path.write_bytes(numbered_clip(10, form=form, video=codec, sound=sound))
    assert container_of(path) == EXPECTED.get(form, form)
    assert decord_agrees(path, container_of(path)) == (container_of(path) in ("mov", "matroska"))


@pytest.mark.parametrize("skipped", [1, 100, 187])
def test_a_recording_may_begin_in_the_middle_of_a_packet(tmp_path, skipped):
    path = tmp_path / "1.ts"
    path.write_bytes(numbered_clip(form="mpegts", video="mpeg2video", sound="mp2")[skipped:])
    assert container_of(path) == "mpegts"


def test_decord_gets_no_file_whose_format_another_reader_could_claim(tmp_path):
    path = tmp_path / "1.mov"
    path.write_bytes(b"<MPDftyp" + clip_bytes()[8:])
    assert container_of(path) == "mov"
    assert not decord_agrees(path, "mov")


def test_the_same_frames_and_sound_are_read_from_a_private_copy(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "c.mp4").write_bytes(clip_bytes())
    from erv.media.decode import DECODED, decode_item, decode_task, load_decoders

    task = decode_task(tmp_path / "source" / "c.mp4", RULE)
    given = {"prepare": load_decoders, "confined": True, "form": DECODED}
    (outcome,) = isolated(decode_item, [task], workers=1, seconds=30, **given)
    here = decode(tmp_path / "source" / "c.mp4", RULE)
    np.testing.assert_array_equal(outcome.result.frames, here.frames)
    np.testing.assert_array_equal(outcome.result.audio, here.audio)


@pytest.mark.parametrize("brand", [b"jp2 ", b"jpx ", b"abcd"])
def test_decord_gets_no_film_that_it_may_take_for_something_else(tmp_path, brand):
    """With the brand of JPEG 2000, decord read a transport stream further on, other pictures than PyAV."""
    content = bytearray(clip_bytes())
    assert content[4:8] == b"ftyp"
    content[8:12] = brand
    path = tmp_path / "c.mp4"
    path.write_bytes(content)
    assert container_of(path) == "mov"
    assert not decord_agrees(path, "mov")
    assert decode(path, RULE).frames.shape[0] == RULE.frames


@pytest.mark.parametrize(
    "header",
    [
        b"\x1a\x45\xdf\xa3\x01\x00\x00\x00\x00\x20\x00\x00" + bytes(2000),  # of two million bytes
        b"\x1a\x45\xdf\xa3\x84abcd" + bytes(2000),  # of no known type
        b"\x1a\x45\xdf\xa3\x00",
        b"\x1a\x45\xdf\xa3",
    ],
)
def test_decord_gets_no_matroska_that_its_probe_may_give_up(tmp_path, header):
    path = tmp_path / "c.mkv"
    path.write_bytes(header)
    assert not decord_agrees(path, "matroska")
