"""Clips as every browser plays them: H.264 and AAC in an mp4, upright, with square pixels, without metadata.

The source is decoded in a confined worker process, as everywhere else, and only what was decoded is encoded
again: nothing of the source file itself reaches a rater's browser.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from erv.media.answers import Form, array_of
from erv.media.header import read_header, shown_size
from erv.media.limits import MediaError
from erv.media.seeking import survey
from erv.media.sequential import shown_pictures, upright
from erv.media.sound import read_sound

LONGEST_SIDE = 640  # pixels
SAMPLE_RATE = 48_000  # Hz; mono
MOST_SECONDS = 120.0  # nobody rates longer clips with care
MOST_BYTES = 64_000_000
_TIME_BASE = Fraction(1, 90_000)
_USUAL_STEP = 1 / 25
_SAMPLES = 1024  # of a frame of AAC
# One thread, and nothing that differs between processors or processes (as `erv.sample.clips` found out of
# x264's macroblock tree): the same clip gives the same bytes.
_X264 = {
    "crf": "21",
    "preset": "medium",
    "x264-params": "threads=1:cpu-independent=1:mbtree=0:bframes=0:colormatrix=smpte170m:range=tv",
}
_LUMA = np.array([round(16 + value * 219 / 255) for value in range(256)], np.uint8)
_CHROMA = np.array([round(128 + (value - 128) * 224 / 255) for value in range(256)], np.uint8)


@dataclass(frozen=True)
class PlayTask:
    """A clip to make playable, as a confined worker takes it (`erv.media.handed`)."""

    files: tuple[Path, ...]


def load() -> None:
    """Imports what `playable` needs, before any clip's time limit starts."""
    import av.subtitles.stream  # noqa: F401  # PyAV imports it when it opens the first file
    import PIL.Image

    PIL.Image.preinit()
    # Encoders that are opened once find what they load late while files may still be read.
    _encoded([(0.0, np.zeros((16, 16, 3), np.uint8))], np.zeros(_SAMPLES, np.int16), _USUAL_STEP)


def playable(task: PlayTask) -> np.ndarray:
    """The clip as the bytes of an mp4 file.

    Returns:
        uint8 [bytes].

    Raises:
        MediaError: it can't be decoded, or is too long.
    """
    (path,) = task.files
    header = read_header(path)
    found = survey(path, header, ask_ratio=True)
    if found.times is not None and found.times.seconds > MOST_SECONDS:
        raise MediaError(
            f"too long: {found.times.seconds:.0f} s, at most {MOST_SECONDS:.0f} s are shown to people"
        )
    ratio = found.ratio or header.ratio or 1.0
    pictures: list[tuple[float, np.ndarray]] = []
    for frame in shown_pictures(path, header.form, header.film, header.shown):
        time = pictures[-1][0] + _USUAL_STEP if pictures and frame.time is None else float(frame.time or 0.0)
        pictures.append((time, _shown(upright(frame), ratio)))
        if time - pictures[0][0] > MOST_SECONDS:
            raise MediaError(f"too long: at most {MOST_SECONDS:.0f} s are shown to people")
    if not pictures:
        raise MediaError("video track has no frames")
    sound = None
    if header.voice is not None:
        sound = read_sound(path, header.form, header.voice, SAMPLE_RATE, found.start)
    last = found.times.last if found.times is not None else 0.0
    return np.frombuffer(_encoded(pictures, sound, last or _USUAL_STEP), np.uint8)


def _read(task: PlayTask, value: Any) -> np.ndarray:
    return array_of(value, np.uint8, 1)


PLAYABLE: Form[PlayTask, np.ndarray] = Form(_read, lambda _: MOST_BYTES)


def _shown(pixels: np.ndarray, ratio: float) -> np.ndarray:
    """uint8 RGB [H, W, 3] with square pixels, sides that are multiples of 4, none above `LONGEST_SIDE`.

    Args:
        pixels: uint8 RGB [H, W, 3].
        ratio: width of a pixel over its height.
    """
    from PIL import Image

    height, width = pixels.shape[:2]
    wide, high = shown_size(width, height, ratio)
    scale = min(1.0, LONGEST_SIDE / max(wide, high))
    size = (max(16, round(wide * scale / 4) * 4), max(16, round(high * scale / 4) * 4))
    if size == (width, height):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def _planes(pixels: np.ndarray) -> np.ndarray:
    """uint8 [H * 3 / 2, W], planes 4:2:0 of BT.601 in limited range, of uint8 RGB [H, W, 3].

    Done here because FFmpeg's scaler rounds differently depending on buffer alignment, which varies by run.
    """
    from PIL import Image

    height, width = pixels.shape[:2]
    luma, *chroma = Image.fromarray(pixels).convert("YCbCr").split()
    halves = [_CHROMA.take(np.asarray(plane.reduce(2))).reshape(height // 4, width) for plane in chroma]
    return np.concatenate([_LUMA.take(np.asarray(luma)), *halves])


def _encoded(pictures: list[tuple[float, np.ndarray]], sound: np.ndarray | None, last: float) -> bytes:
    """An mp4 file.

    Args:
        pictures: seconds and uint8 RGB [H, W, 3], all of one size.
        sound: int16 mono samples that begin with the first picture; None without.
        last: seconds that the last picture is shown.
    """
    import av

    buffer = io.BytesIO()
    # bitexact: no library versions and no time of writing in the file.
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as out:
        film = out.add_stream("libx264", rate=25, options=dict(_X264))
        film.height, film.width = pictures[0][1].shape[:2]
        film.pix_fmt = "yuv420p"
        film.time_base = film.codec_context.time_base = _TIME_BASE
        film.thread_count = 1
        film.codec_context.flags |= av.codec.context.Flags.bitexact
        voice: Any = None
        if sound is not None:
            voice = out.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
            voice.bit_rate, voice.thread_count = 96_000, 1
            voice.codec_context.flags |= av.codec.context.Flags.bitexact
        packets, before = [], -1
        for time, pixels in pictures:
            frame = av.VideoFrame.from_ndarray(_planes(pixels), format="yuv420p")
            # Files may give two pictures one time; an encoder wants them apart.
            before = max(before + 1, round((time - pictures[0][0]) / _TIME_BASE))
            frame.pts, frame.time_base = before, _TIME_BASE
            packets += film.encode(frame)
        packets += film.encode(None)
        # Without B-frames the last packet is the last picture.
        packets[-1].duration = round(last / packets[-1].time_base)
        if voice is not None and sound is not None:
            for start in range(0, len(sound), _SAMPLES):
                part = np.ascontiguousarray(sound[None, start : start + _SAMPLES])
                heard = av.AudioFrame.from_ndarray(
                    part.astype(np.float32) / 32768.0, format="fltp", layout="mono"
                )
                heard.sample_rate, heard.pts, heard.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
                packets += voice.encode(heard)
            packets += voice.encode(None)
        # By time, so that a browser can begin before it has the whole file.
        out.mux(sorted(packets, key=lambda packet: (packet.dts * packet.time_base, packet.stream_index)))
    return buffer.getvalue()
