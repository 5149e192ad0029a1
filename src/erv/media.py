"""Media: what a clip's file holds, and its decoding to frames and audio as the policy takes them.

The rules are HumanOmni's: frames spread evenly over the clip, resized with PIL's bicubic filter to the
square of the vision tower after padding (training in the released code) or stretching (its inference),
audio as 16 kHz mono. Unlike there, a clip without sound is said to have none; it never becomes seconds of
zeros.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

Geometry = Literal["stretch", "pad"]
# What decord puts before a message: the time of day and the place in its source.
_STAMP = re.compile(r"\[\d\d:\d\d:\d\d\]\s+\S+?:\d+:\s*")
_PAD_COLOR = (127, 127, 127)  # int(0.5 * 255), the mean of the image processor


class MediaError(Exception):
    """A clip's file can't be decoded; the message is the reason that its quarantine entry gives."""


@dataclass(frozen=True)
class DecodeRule:
    """How clips become arrays: frames per clip, side in pixels, geometry, sample rate in Hz."""

    frames: int
    size: int
    geometry: Geometry
    sample_rate: int


@dataclass(frozen=True)
class Decoded:
    """A decoded clip: uint8 RGB [T, size, size, 3] and int16 mono samples, None without a sound track."""

    frames: np.ndarray
    audio: np.ndarray | None


@dataclass(frozen=True)
class Probe:
    """What a look into a file tells without decoding all of it.

    Attributes:
        seconds: length of the video track.
        frames: video packets found; fewer than declared means a truncated file.
        width: in pixels.
        height: in pixels.
        has_audio: whether there is a sound track with content.
        fault: why the file can't be used, or None.
    """

    seconds: float
    frames: int
    width: int
    height: int
    has_audio: bool
    fault: str | None


def frame_indices(count: int, wanted: int) -> np.ndarray:
    """Which frames of a file are taken: the middles of `wanted` equal parts, with duplicates in short files.

    `round(((count - 1) / wanted) * (i + 0.5) + 1e-6)`, half to even, as the released code computes it.

    Args:
        count: frames in the file, at least 1.
        wanted: frames per clip.

    Returns:
        int64 [wanted], not decreasing.
    """
    return np.round((count - 1) / wanted * (np.arange(wanted) + 0.5) + 1e-6).astype(np.int64)


def to_square(frames: np.ndarray, size: int, geometry: Geometry) -> np.ndarray:
    """Resizes uint8 RGB [T, H, W, 3] to [T, size, size, 3] with PIL's bicubic filter.

    `pad` first centres a frame on a square of grey 127, `stretch` distorts its aspect ratio.
    """
    from PIL import Image

    squares = []
    for pixels in frames:
        image = Image.fromarray(pixels)
        width, height = image.size
        if geometry == "pad" and width != height:
            side = max(width, height)
            canvas = Image.new("RGB", (side, side), _PAD_COLOR)
            canvas.paste(image, ((side - width) // 2, (side - height) // 2))
            image = canvas
        # Rows first, as Pillow did until it began to choose the order by cost: pixels differ by up to 2.
        wide = image.resize((size, image.height), Image.Resampling.BICUBIC)
        squares.append(np.asarray(wide.resize((size, size), Image.Resampling.BICUBIC)))
    return np.stack(squares)


def decode(path: Path, rule: DecodeRule) -> Decoded:
    """Decodes a clip with decord.

    Raises:
        MediaError: the file can't be read, has no frame, or its sound holds values that are not numbers.
    """
    import decord

    # With num_threads=0 FFmpeg takes a thread per core in every worker.
    try:
        video = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
        if not len(video):
            raise MediaError("video track has no frames")
        frames = video.get_batch(frame_indices(len(video), rule.frames).tolist()).asnumpy()
    except (RuntimeError, ValueError, IndexError, decord.DECORDError) as error:
        raise MediaError(f"video can't be decoded: {_short(error, path)}") from error
    return Decoded(to_square(frames, rule.size, rule.geometry), _decode_audio(path, rule.sample_rate))


def _decode_audio(path: Path, sample_rate: int) -> np.ndarray | None:
    """int16 mono samples, or None without a sound track."""
    import decord

    if not _has_sound_track(path):
        return None
    try:
        wave = decord.AudioReader(str(path), ctx=decord.cpu(0), sample_rate=sample_rate, mono=True)
        samples = wave[:].asnumpy().reshape(-1)
    except (RuntimeError, ValueError, IndexError, decord.DECORDError) as error:
        raise MediaError(f"sound can't be decoded: {_short(error, path)}") from error
    if not samples.size:
        return None
    if not np.isfinite(samples).all():
        raise MediaError("sound holds values that are not numbers")
    return np.round(np.clip(samples, -1.0, 1.0) * 32767).astype(np.int16)


def _has_sound_track(path: Path) -> bool:
    import av

    try:
        with av.open(str(path)) as container:
            return bool(container.streams.audio)
    except (av.FFmpegError, OSError) as error:
        raise MediaError(f"container can't be read: {_short(error, path)}") from error


def probe(path: Path) -> Probe:
    """Looks into a file: reads all packets, decodes only the first frame. Never raises for a bad file."""
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                return Probe(0.0, 0, 0, 0, bool(container.streams.audio), "no video track")
            video = container.streams.video[0]
            packets, samples, first = 0, 0, None
            for packet in container.demux():
                if packet.size == 0:
                    continue
                if packet.stream is video:
                    packets += 1
                    first = first or next(iter(packet.decode()), None)
                elif packet.stream.type == "audio":
                    samples += 1
            if first is None:  # a decoder that holds frames back hands them over at the end
                first = next(iter(video.decode(None)), None)
            rate = float(video.average_rate or 0)
            fault = None
            if first is None:
                fault = "no frame can be decoded"
            elif video.frames and packets < video.frames:
                fault = f"truncated: {packets} of {video.frames} frames"
            return Probe(
                packets / rate if rate else 0.0, packets, video.width, video.height, samples > 0, fault
            )
    except (av.FFmpegError, OSError, ValueError) as error:
        return Probe(0.0, 0, 0, 0, False, f"container can't be read: {_short(error, path)}")


def _short(error: BaseException, path: Path) -> str:
    """The first line of a decoder's message, without what differs between runs: time, source line, path."""
    lines = [line.strip() for line in _STAMP.sub("", str(error)).splitlines() if line.strip()]
    text = (
        (lines[0] if lines else type(error).__name__)
        .replace(str(path), "the file")
        .replace(path.name, "the file")
    )
    return text[:200]
