"""Small clips and a pinned folder of them, for tests of media, extraction and shards."""

import io
import os
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from erv.manifest import ClipRow
from erv.pinning import pin
from erv.sample.clips import encode
from erv.settings import ExtractSettings
from erv.sources import Lock
from erv.sources.selection import Selection

# Suffix, container and encoders: what a video file with each suffix usually holds.
CONTAINERS = (
    ("mp4", "mp4", "libx264", "aac"),
    ("m4v", "ipod", "libx264", "aac"),
    ("mov", "mov", "libx264", "pcm_s16le"),
    ("mkv", "matroska", "libx264", "aac"),
    ("webm", "webm", "libvpx-vp9", "libopus"),
    ("mp4", "mp4", "libx265", "aac"),
    ("mp4", "mp4", "mpeg4", "aac"),
    ("mp4", "mp4", "libsvtav1", "aac"),
    ("avi", "avi", "mpeg4", "mp2"),
    ("avi", "avi", "libx264", "mp2"),
    ("mpg", "mpeg", "mpeg1video", "mp2"),
    ("mpeg", "vob", "mpeg2video", "mp2"),
    ("mpg", "mpegts", "mpeg2video", "mp2"),
    ("flv", "flv", "flv", "aac"),
    ("flv", "flv", "flv", "pcm_s16le"),
    ("flv", "flv", "libx264", "aac"),
    ("wmv", "asf", "wmv2", "mp2"),
)
ALL = Selection()
SETTINGS = ExtractSettings(
    frames=8,
    size=64,
    geometry="stretch",
    resize="pillow",
    sample_rate=16000,
    short_folders="repeat",
    missing_audio="quarantine",
    clip_timeout_seconds=30,
    clip_memory_mb=1000,
    clips_per_shard=5,
    max_quarantine_share=0.5,
)


def settings(**changes) -> ExtractSettings:
    """The tests' settings, with some changed."""
    return SETTINGS.model_copy(update=changes)


def tone(seconds: float, hertz: float = 440) -> np.ndarray:
    return (8000 * np.sin(2 * np.pi * hertz * np.arange(int(16000 * seconds)) / 16000)).astype(np.int16)


def movie(count: int = 24, height: int = 96, width: int = 160) -> list[np.ndarray]:
    """Frames with a brightness that encodes their number."""
    return [np.full((height, width, 3), 40 + 6 * index % 216, np.uint8) for index in range(count)]


def clip_bytes(number: int = 0) -> bytes:
    """An mp4 file of 24 frames with sound; the same number gives the same file."""
    texture = np.random.default_rng(number).integers(0, 60, (12, 20, 3), dtype=np.uint8)
    texture = texture.repeat(8, axis=0).repeat(8, axis=1)
    return encode([texture + picture for picture in movie(24)], tone(2.0, 200 + 20 * number))


def numbered_clip(
    count: int = 50,
    *,
    form: str = "mp4",
    video: str = "libx264",
    sound: str | None = "aac",
    gop: int = 12,
    bframes: int = 0,
    encoder: str = "",
    options: dict[str, str] | None = None,
) -> bytes:
    """A video of 25 pictures a second; picture N has the brightness 20 + 4 * N (see `picture_numbers`).

    Args:
        count: number of pictures.
        form: FFmpeg's name of the container.
        video: encoder of the pictures.
        sound: encoder of the sound; None for a clip without sound.
        gop: pictures from one key frame to the next.
        bframes: maximum number of B-frames in a row.
        encoder: more parameters of libx264 or libx265.
        options: options of the container.
    """
    buffer = io.BytesIO()
    voice = tone(count / 25).reshape(count, -1)
    with _same_scheduling(), av.open(buffer, "w", format=form, options=options or {}) as out:
        pictures = out.add_stream(video, rate=25, options=_encoder_options(video, encoder))
        pictures.width, pictures.height, pictures.pix_fmt = 160, 96, "yuv420p"
        pictures.gop_size, pictures.max_b_frames = gop, bframes
        track = (
            out.add_stream(sound, rate=48000 if sound == "libopus" else 44100, layout="mono")
            if sound
            else None
        )
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(
                np.full((96, 160, 3), 20 + 4 * index, np.uint8), format="rgb24"
            )
            frame.pts, frame.time_base = index, Fraction(1, 25)
            out.mux(pictures.encode(frame))
            if track is not None:
                heard = av.AudioFrame.from_ndarray(voice[index][None], format="s16", layout="mono")
                heard.sample_rate, heard.pts, heard.time_base = 16000, 640 * index, Fraction(1, 16000)
                out.mux(track.encode(heard))
        out.mux(pictures.encode(None))
        if track is not None:
            out.mux(track.encode(None))
    return buffer.getvalue()


@contextmanager
def _same_scheduling() -> Iterator[None]:
    """SVT-AV1 makes the thread that opens it a real-time one if it may; what starts later inherits that."""
    if not hasattr(os, "sched_getscheduler"):  # Linux alone has it
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


def _encoder_options(video: str, more: str) -> dict[str, str]:
    if video == "libx264":
        return {"x264-params": f"scenecut=0:threads=1:{more}"}
    if video == "libx265":
        return {"x265-params": f"log-level=none:pools=1:frame-threads=1:{more}"}
    return {"svtav1-params": "lp=1", "preset": "12"} if video == "libsvtav1" else {}


def picture_numbers(frames: np.ndarray) -> list[int]:
    """The numbers of `numbered_clip` pictures [T, H, W, 3], from their brightness."""
    return np.round((frames.mean(axis=(1, 2, 3)) - 20) / 4).astype(int).tolist()


def trimmed(content: bytes, *edits: tuple[float, float], track: bytes = b"vide") -> bytes:
    """An mp4 file (index last) with the edit list of one track replaced.

    Args:
        content: bytes of the file.
        edits: for each edit, where it begins in the track and how long it is, in seconds.
        track: kind of track.
    """
    top = {kind: (start, end) for kind, start, end in _boxes(content)}
    begin, end = top[b"moov"]
    assert end == len(content) > begin > top[b"mdat"][0]
    per_second = _time_scale(
        content, next(s for kind, s, _ in _boxes(content, begin + 8, end) if kind == b"mvhd")
    )
    index = b""
    for kind, start, stop in _boxes(content, begin + 8, end):
        index += (
            _edit(content, start, stop, edits, per_second, track) if kind == b"trak" else content[start:stop]
        )
    return content[:begin] + _box(b"moov", index)


def _edit(
    content: bytes,
    begin: int,
    end: int,
    edits: tuple[tuple[float, float], ...],
    per_second: int,
    track: bytes,
) -> bytes:
    parts = {kind: content[start:stop] for kind, start, stop in _boxes(content, begin + 8, end)}
    media = {kind: (start, stop) for kind, start, stop in _boxes(parts[b"mdia"], 8)}
    handler = media[b"hdlr"][0]
    if parts[b"mdia"][handler + 16 : handler + 20] != track:
        return content[begin:end]
    scale = _time_scale(parts[b"mdia"], media[b"mdhd"][0])
    entries = struct.pack(">II", 0, len(edits))
    for at, seconds in edits:
        entries += struct.pack(">IiI", round(seconds * per_second), round(at * scale), 0x10000)
    parts[b"edts"] = _box(b"edts", _box(b"elst", entries))
    order = (b"tkhd", b"edts", b"mdia")
    return _box(b"trak", b"".join(parts[kind] for kind in order))


def _boxes(content: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of each box at one level."""
    while start + 8 <= (len(content) if end is None else end):
        size, kind = struct.unpack(">I4s", content[start : start + 8])
        yield kind, start, start + size
        start += size


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def _time_scale(content: bytes, header: int) -> int:
    """Time units per second in an mvhd or mdhd box."""
    return int.from_bytes(content[header + 20 : header + 24], "big")


def write_clips(folder: Path, count: int) -> list[Path]:
    """Files `00000.mp4`, ...; four different clips, repeated."""
    folder.mkdir(parents=True, exist_ok=True)
    made = [clip_bytes(number) for number in range(min(count, 4))]
    paths = [folder / f"{number:05d}.mp4" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(made[number % 4])
    return paths


def pinned(
    folder: Path, name: str = "mafw", store=None, uri: str | None = None, selection: Selection = ALL
) -> tuple[list[ClipRow], Lock]:
    """Rows and lock of all files in a folder, as ingest would produce them."""
    lock = pin(name, uri or str(folder), store, selection=selection)
    return [row_of(lock, file.path) for file in lock.files], lock


def row_of(lock: Lock, path: str) -> ClipRow:
    file = lock.find(path)
    return ClipRow(
        clip_id=Path(path).stem,
        dataset=lock.name,
        fold=1,
        split="train",
        label="happiness",
        raw_label="happiness",
        caption=None,
        completion=None,
        media="frames" if file.frames else "video",
        uri=lock.uri_of(path),
        bytes=file.bytes,
        sha256=file.sha256,
        label_from="list.txt:1",
        split_from="list.txt:1",
        caption_from=None,
    )


def same_files(first: Path, second: Path) -> bool:
    """Whether two folders hold the same names with the same bytes."""
    names = sorted(path.name for path in first.iterdir())
    return names == sorted(path.name for path in second.iterdir()) and all(
        (first / name).read_bytes() == (second / name).read_bytes() for name in names
    )


def copy_tree(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target))
