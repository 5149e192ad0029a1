"""A look into a clip: what it measures, and what it says of clips that nothing can decode."""

import io
import re
from dataclasses import replace

import av
import numpy as np
import pytest
from PIL import Image

from erv.errors import DataError
from erv.media.decode import DecodeRule, decode
from erv.media.header import read_header
from erv.pinning import pin
from erv.sample.clips import encode
from erv.sources.selection import _VIDEOS, Selection
from erv.validate import video_probe
from erv.validate.probing import Probe, probe, probe_clips
from tests.fuzz.mutations import boxes, index_first
from tests.support.clips import CONTAINERS, movie, numbered_clip, pinned, row_of, tone, trimmed
from tests.support.verdicts import SETTINGS


def look(tmp_path, content, name="00001.mp4"):
    path = tmp_path / name
    path.write_bytes(content)
    found = probe(path)
    assert name not in str(found.fault)
    assert str(tmp_path) not in str(found.fault)
    return found


def video(pictures, gop=250, codec="libx264", container="mp4", rate=12):
    """A video without sound, with a key frame every `gop` pictures."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.gop_size = gop
        for pixels in pictures:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(stream.encode(None))
    return buffer.getvalue()


def noise(count, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 255, (96, 160, 3), dtype=np.uint8) for _ in range(count)]


def test_it_measures_the_clip(tmp_path):
    found = look(tmp_path, encode(movie(), tone(2.0), fps=12))
    assert (found.frames, found.width, found.height, found.fps) == (24, 160, 96, 12.0)
    assert found.seconds == pytest.approx(2.0)
    assert found.audio_seconds == pytest.approx(2.0, abs=0.2)
    assert found.has_audio
    assert found.fault is None
    assert found.decodable
    assert found.brightness == pytest.approx(40 + 6 * 23, abs=4)
    # A sine's RMS is its amplitude over the square root of two.
    assert found.loudness_db == pytest.approx(20 * np.log10(8000 / 32768 / 2**0.5), abs=0.7)


def test_black_differs_from_dark_and_from_a_late_light(tmp_path):
    black = [np.zeros((96, 160, 3), np.uint8)] * 24
    lit = [*black[:-1], np.full((96, 160, 3), 200, np.uint8)]
    assert look(tmp_path, video(black)).brightness == pytest.approx(0.0, abs=1.0)
    assert look(tmp_path, video(lit)).brightness > 150
    assert look(tmp_path, video(lit, gop=5)).brightness > 150


def test_silence_is_no_absence_of_sound(tmp_path):
    silent = look(tmp_path, encode(movie(), np.zeros(32000, np.int16)))
    assert silent.has_audio
    assert silent.loudness_db == -120.0
    assert silent.fault is None
    without = look(tmp_path, encode(movie(), None))
    assert not without.has_audio
    assert without.loudness_db is None
    assert without.audio_seconds == 0.0
    assert without.fault is None


def test_sound_without_pictures(tmp_path):
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(1.0)[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = 16000, 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    assert look(tmp_path, buffer.getvalue()).fault == "no video track"


@pytest.mark.parametrize(
    ("codec", "container"), [("mpeg4", "avi"), ("mjpeg", "avi"), ("libx264", "matroska")]
)
def test_other_formats(tmp_path, codec, container):
    found = look(tmp_path, video(movie(), codec=codec, container=container))
    assert (found.fault, found.frames, found.fps) == (None, 24, 12.0)
    assert found.brightness > 100


@pytest.mark.parametrize("with_sound", [True, False])
@pytest.mark.parametrize(("suffix", "form", "codec", "sound"), CONTAINERS)
def test_sound_is_found_in_every_container(tmp_path, suffix, form, codec, sound, with_sound):
    content = numbered_clip(form=form, video=codec, sound=sound if with_sound else None)
    found = look(tmp_path, content, f"00001.{suffix}")
    assert (found.fault, found.frames, found.has_audio) == (None, 50, with_sound)
    decoded = decode(tmp_path / f"00001.{suffix}", DecodeRule(8, 64, "stretch", 16000))
    assert (decoded.audio is not None) == with_sound
    assert not with_sound or abs(len(decoded.audio) - 32000) < 3000


# Other suffixes of formats that CONTAINERS has, and formats that it lacks.
OTHERS = (
    ("3gp", "3gp", "libx264", "aac"),
    ("asf", "asf", "wmv2", "mp2"),
    ("m2ts", "mpegts", "mpeg2video", "mp2"),
    ("mts", "mpegts", "libx264", "aac"),
    ("ogv", "ogg", "libvpx", "libopus"),
    ("ts", "mpegts", "mpeg2video", "mp2"),
    ("vob", "vob", "mpeg2video", "mp2"),
)


@pytest.mark.parametrize(("suffix", "form", "codec", "sound"), OTHERS)
def test_other_suffixes_are_read(tmp_path, suffix, form, codec, sound):
    found = look(tmp_path, numbered_clip(form=form, video=codec, sound=sound), f"00001.{suffix}")
    assert (found.fault, found.frames, found.has_audio) == (None, 50, True)


def test_every_suffix_of_a_listed_video_is_tried():
    assert {f".{suffix}" for suffix, *_ in (*CONTAINERS, *OTHERS)} == set(_VIDEOS)


@pytest.mark.parametrize(
    ("edits", "frames"),
    [([(0.2, 1.8)], 45), ([(0.0, 1.0)], 25), ([(0.6, 1.0)], 25), ([(0.2, 0.4), (1.2, 0.4)], 20)],
)
@pytest.mark.parametrize("gop", [250, 12])
def test_a_trimmed_clip_is_whole(tmp_path, gop, edits, frames):
    found = look(tmp_path, trimmed(numbered_clip(gop=gop), *edits))
    assert (found.fault, found.frames, found.fps, found.has_audio) == (None, frames, 25.0, True)
    assert found.seconds == pytest.approx(frames / 25)
    last = round(25 * sum(edits[-1])) - 1
    assert found.brightness == pytest.approx(20 + 4 * last, abs=4)  # of a picture that is shown


def test_a_trimmed_clip_that_lacks_pictures(tmp_path):
    content = bytearray(index_first(trimmed(numbered_clip(sound=None, gop=250), (0.2, 1.8))))
    assert look(tmp_path, bytes(content)).fault is None
    media = next(position for kind, position, _ in boxes(bytes(content)) if kind == b"mdat")
    content[media : media + 4] = (len(content) - 300 - media).to_bytes(4, "big")
    assert re.fullmatch(r"truncated: \d+ of 45 frames", look(tmp_path, bytes(content[:-300])).fault)


def test_a_trimmed_clip_with_pictures_that_do_not_decode(tmp_path):
    content = trimmed(video(noise(24), gop=250), (0.5, 1.0))
    assert look(tmp_path, content).fault is None
    middle = content.index(b"moov") // 2
    assert look(tmp_path, content[:middle] + bytes(middle // 2) + content[middle + middle // 2 :]).fault


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"not a video", "container can't be read: not a known video format"),
        (
            b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n/etc/passwd\n",
            "container can't be read: a playlist",
        ),
    ],
)
def test_what_is_no_video(tmp_path, content, reason):
    found = look(tmp_path, content)
    assert not found.decodable
    assert found.seconds is None
    assert re.match(reason, found.fault)


@pytest.mark.parametrize("container", ["mp4", "avi", "matroska"])
def test_a_copy_that_was_cut_off(tmp_path, container):
    codec = "mpeg4" if container == "avi" else "libx264"
    content = video(noise(24), codec=codec, container=container)
    assert look(tmp_path, content).fault is None
    assert look(tmp_path, content[: len(content) * 6 // 10]).fault is not None


@pytest.mark.parametrize("gop", [250, 4])
def test_an_end_that_does_not_decode(tmp_path, gop):
    content = bytearray(video(noise(24), gop=gop))
    start = content.index(b"mdat")
    end = content.index(b"moov") - 4
    assert start < end
    tail = end - (end - start) // 9
    content[tail:end] = bytes(end - tail)
    found = look(tmp_path, bytes(content))
    assert found.frames == 24
    assert "the last frames can't be decoded: " in found.fault


def test_equal_files_give_equal_probes_wherever_they_lie(tmp_path):
    content = bytearray(encode(movie(), tone(2.0)))
    content[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    first = look(tmp_path, bytes(content))
    (tmp_path / "elsewhere").mkdir()
    assert look(tmp_path / "elsewhere", bytes(content), "other.mp4") == first


def folder_of(path, pictures):
    path.mkdir(parents=True)
    for index, pixels in enumerate(pictures, start=1):
        Image.fromarray(pixels).save(path / f"{path.name}_{index:05d}.jpg")
    return path


def test_a_frame_folder(tmp_path):
    found = probe(folder_of(tmp_path / "00001", movie(12)))
    assert found == Probe(frames=12, width=160, height=96, brightness=found.brightness)
    assert found.brightness == pytest.approx(40 + 6 * 11, abs=3)


def test_a_frame_folder_with_a_truncated_last_image(tmp_path):
    folder = folder_of(tmp_path / "00001", movie(12))
    last = folder / "00001_00012.jpg"
    last.write_bytes(last.read_bytes()[:400])
    found = probe(folder)
    assert "00001_00012.jpg" in found.fault
    assert str(tmp_path) not in found.fault
    assert found.frames == 12


def test_an_empty_frame_folder(tmp_path):
    (tmp_path / "00001").mkdir()
    assert not probe(tmp_path / "00001").decodable


def test_an_image_that_claims_gigabytes_is_not_decoded(tmp_path):
    folder = folder_of(tmp_path / "00001", movie(2))
    Image.new("1", (20000, 20)).save(folder / "00001_00002.png")
    (folder / "00001_00002.jpg").unlink()
    assert "too large" in probe(folder).fault


def test_clips_are_looked_into_by_workers_in_the_order_of_the_rows(tmp_path, caplog):
    source = tmp_path / "source"
    source.mkdir()
    (source / "b.mp4").write_bytes(encode(movie(), tone(2.0)))
    (source / "a.mp4").write_bytes(b"junk")
    rows, lock = pinned(source)
    with caplog.at_level("INFO", logger="erv.validate.probing"):
        found = probe_clips(rows[::-1], lock, None, SETTINGS, workers=2)
    assert list(found) == ["b", "a"]
    assert found["b"] == probe(source / "b.mp4")
    assert "container can't be read" in found["a"].fault
    lines = [line.partition(" [")[0] for line in caplog.messages]
    # There may be lines between, on a slow machine.
    assert lines[0] == "validate mafw: 0/2 clips"
    assert lines[-1] == "validate mafw: 2/2 clips, 1 can't be decoded"


def test_a_clip_that_needs_too_much_memory_costs_itself_alone(tmp_path):
    source = tmp_path / "source"
    folder_of(source / "00001", [np.zeros((4000, 8000, 3), np.uint8)])
    (source / "b.mp4").write_bytes(encode(movie(), tone(2.0)))
    lock = pin("dfew", str(source), None, selection=Selection(aggregate=True, frames=r"^\d+$"))
    rows = [row_of(lock, file.path) for file in lock.files]
    found = probe_clips(rows, lock, None, SETTINGS.model_copy(update={"clip_memory_mb": 60}), workers=2)
    assert found["b"].fault is None
    assert found["00001"].fault is not None
    assert "MB" in found["00001"].fault or "memory" in found["00001"].fault


def test_manifest_and_lock_belong_together(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.mp4").write_bytes(b"junk")
    rows, lock = pinned(source)
    with pytest.raises(DataError, match="run ingest again"):
        probe_clips([replace(rows[0], sha256="0" * 64)], lock, None, SETTINGS, workers=2)


def test_a_probe_knows_whether_it_decodes():
    assert Probe().decodable
    assert not Probe(fault="x").decodable


@pytest.fixture
def full_looks(monkeypatch):
    """The clips that were looked at in full."""
    looked = []
    look = video_probe._look

    def noted(path, *arguments):
        looked.append(path.name)
        return look(path, *arguments)

    monkeypatch.setattr(video_probe, "_look", noted)
    return looked


def test_a_bright_clip_without_a_fault_is_looked_at_quickly(tmp_path, full_looks):
    path = tmp_path / "c.mp4"
    path.write_bytes(numbered_clip(50, bframes=3, gop=250))
    quick = probe(path)
    assert not full_looks
    header = read_header(path)
    packets, _ = video_probe._read_packets(path, header)
    fault, brightness = video_probe._look(path, header, packets)
    assert quick.fault is fault is None
    assert quick.brightness == pytest.approx(brightness, abs=1.0)


@pytest.mark.parametrize("clip", ["dark", "open", "avi"])
def test_any_other_clip_is_looked_at_in_full(tmp_path, full_looks, clip):
    path = tmp_path / f"c.{'avi' if clip == 'avi' else 'mp4'}"
    if clip == "dark":
        path.write_bytes(encode([np.full((96, 160, 3), 12, np.uint8)] * 24, None))
    elif clip == "open":
        path.write_bytes(numbered_clip(50, bframes=3, encoder="open-gop=1"))
    else:
        path.write_bytes(numbered_clip(50, form="avi", video="mpeg4", sound="mp2"))
    assert probe(path).fault is None
    assert full_looks == [path.name]


def test_a_quick_look_notices_damage_wherever_a_picture_is_needed_and_at_the_end(tmp_path, full_looks):
    path, content = tmp_path / "c.mp4", numbered_clip(50, bframes=3, gop=250, sound=None)
    path.write_bytes(content)
    packets, _ = video_probe._read_packets(path, read_header(path))
    needed = packets.order.referred | (np.arange(50) >= 46)
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for must, (position, size) in [*zip(needed, places, strict=True)][::3]:
        path.write_bytes(content[:position] + bytes(size) + content[position + size :])
        full_looks.clear()
        probe(path)
        assert full_looks or not must  # its verdict is that of earlier versions
    assert not needed.all()
