"""Limits on what a file may claim, checked before anything is decoded, and the wording of faults.

Clips come from arbitrary sources. A small header can claim pictures of gigabytes, ten hours, or other files
to read. All of that is checked here, in the container, without a decoder.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

MAX_SIDE = 8192  # pixels, of a video frame or an image
MAX_PIXELS = 8192 * 4320  # of a frame, which then takes 106 MB as RGB
MAX_SECONDS = 3600.0
MAX_FRAMES = 432_000  # an hour at 120 per second
MAX_CHANNELS = 64
MAX_SAMPLE_RATE = 768_000  # Hz
# Containers of media.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpeg,mpegts,asf,ogg,wav,mp3,aac,flac,m4v,h264,ivf"
# A playlist (HLS, DASH, concat) would make the decoder open the files it names.
_MEDIA_ONLY = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
# Decode nothing and read nothing beyond the header: 0.7 ms a clip instead of 8.
_HEADER_ONLY = {**_MEDIA_ONLY, "skip_frame": "all", "probesize": "32"}
# Look for streams that are announced only in packets as far as decoders do: FFmpeg's default.
_LONGER_LOOK = {**_MEDIA_ONLY, "skip_frame": "all"}
# Containers whose header lists all streams; others (FLV, MPEG-PS, MPEG-TS) may list only some or none.
_NAME_ALL_STREAMS = frozenset({"mov", "matroska", "avi", "asf"})
# decord's message prefix: the time of day and the location in its source.
_STAMP = re.compile(r"\[\d\d:\d\d:\d\d\]\s+\S+?:\d+:\s*")
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{5,}\b")
_LONGEST_REASON = 200
_UNKNOWN_SIZES = frozenset({0, 0xFFFFFFFF})


class MediaError(Exception):
    """A clip can't be decoded; the message becomes the reason in its quarantine entry."""


@dataclass(frozen=True)
class Header:
    """What a container claims.

    Attributes:
        width: of the pictures, in pixels.
        height: in pixels.
        frames: pictures according to the index of an mp4 file; 0 for containers without a reliable number.
        has_audio: whether there is a sound track.
        shown: how many pictures a player shows, if the edit list of an mp4 file hides some (see
            `erv.media.sequential`); None for all other clips.
        form: FFmpeg's first name for the container: mov, matroska, avi, ...
    """

    width: int
    height: int
    frames: int
    has_audio: bool
    shown: int | None = None
    form: str = "mov"


def media_options() -> dict[str, str]:
    """Options for `av.open`: open only media, and no file but the given one."""
    return dict(_MEDIA_ONLY)


def read_header(path: Path) -> Header:
    """Reads what a video file claims to be, without decoding any of it.

    Raises:
        MediaError: it is not a media file, has no video track, is cut off, or exceeds the limits here.
    """
    if not path.stat().st_size:
        raise MediaError("the file is empty")
    header = _claims(path, _HEADER_ONLY) or _claims(path, _LONGER_LOOK, last=True)
    if header is None:
        raise MediaError("no video track")
    if not header.width or not header.height:
        raise MediaError("video track has no size")
    check_size(header.width, header.height)
    missing = missing_bytes(path)
    if missing:
        raise MediaError(f"truncated: the file lacks its last {missing} bytes")
    return header


def check_size(width: int, height: int, what: str = "pictures") -> None:
    """Raises MediaError for a width and height in pixels beyond the limits."""
    if width > MAX_SIDE or height > MAX_SIDE or width * height > MAX_PIXELS:
        raise MediaError(
            f"too large: {what} of {width} x {height} pixels, at most {MAX_SIDE} a side and {MAX_PIXELS} in"
            " all are taken"
        )


def _claims(path: Path, options: dict[str, str], *, last: bool = False) -> Header | None:
    """What the container claims; None without a video track, or if reading further may find more."""
    import av

    try:
        with av.open(str(path), options=options, metadata_errors="replace") as container:
            video = next(iter(container.streams.video), None)
            if video is None:
                return None
            form = container.format.name.partition(",")[0]
            has_audio = bool(container.streams.audio)
            if video.codec_context is None:
                raise MediaError("no decoder for the video track")
            sized = bool(video.width and video.height)
            if not last and not (sized and (has_audio or form in _NAME_ALL_STREAMS)):
                return None
            seconds = container.duration / av.time_base if container.duration else 0.0
            tracks = [track for track in container.streams if track.duration and track.time_base]
            seconds = max([seconds, *(float(track.duration * track.time_base) for track in tracks)])
            _check_length(seconds, video.frames)
            for sound in container.streams.audio:
                _check_sound(sound.codec_context)
            size = (video.width or 0, video.height or 0)
            if form != "mov":
                return Header(*size, 0, has_audio, form=form)
            return Header(*size, video.frames, has_audio, _shown_pictures(path, video))
    except MediaError:
        raise
    except (av.FFmpegError, OSError, ValueError, ArithmeticError, LookupError) as error:
        raise MediaError(f"container can't be read: {short_reason(error, path)}") from error


def _shown_pictures(path: Path, video: Any) -> int | None:
    """How many pictures of an mp4 or mov file a player shows if the edit list hides some; otherwise None.

    The index is in memory once the file is open, so this takes microseconds for a clip of seconds. The file
    is opened a second time if the index marks pictures as hidden or differs from the track's count.
    """
    index = video.index_entries
    _check_length(0.0, len(index))
    shown = sum(not entry.is_discard for entry in index)
    if shown == len(index) and video.frames in (0, shown):
        return None
    held = _held_frames(path, video.index)
    if shown == len(index) == held:
        return None
    if held < video.frames:
        raise MediaError(f"truncated: {held} of {video.frames} frames")
    if not shown:
        raise MediaError("the edit list shows no frame")
    return shown


def _held_frames(path: Path, stream: int) -> int:
    """Pictures in the index of a file, ignoring its edit list."""
    import av

    options = {**_HEADER_ONLY, "ignore_editlist": "1"}
    with av.open(str(path), options=options, metadata_errors="replace") as container:
        return len(container.streams[stream].index_entries)


def _check_length(seconds: float, frames: int) -> None:
    if not math.isfinite(seconds) or seconds > MAX_SECONDS:
        raise MediaError(f"too long: {seconds:.0f} s, at most {MAX_SECONDS:.0f} s are taken")
    if frames > MAX_FRAMES:
        raise MediaError(f"too long: {frames} frames, at most {MAX_FRAMES} are taken")


def _check_sound(codec: Any) -> None:
    if codec is None:
        return  # no decoder; whoever reads the sound reports it
    if codec.channels > MAX_CHANNELS or (codec.sample_rate or 0) > MAX_SAMPLE_RATE:
        raise MediaError(
            f"sound of {codec.channels} channels at {codec.sample_rate} Hz, at most {MAX_CHANNELS} and"
            f" {MAX_SAMPLE_RATE} Hz are taken"
        )


def missing_bytes(path: Path) -> int:
    """How many bytes an mp4 or AVI file lacks by its own count, as a truncated copy does.

    Decoders silently play what is left of such a file.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(12)
        if head[:4] == b"RIFF" and head[8:] == b"AVI ":
            declared = struct.unpack("<I", head[4:8])[0]
            return 0 if declared in _UNKNOWN_SIZES else max(0, 8 + declared - size)
        return max(0, _end_of_boxes(stream, size) - size) if head[4:8] == b"ftyp" else 0


def _end_of_boxes(stream: BinaryIO, size: int) -> int:
    """Where the media data of an mp4 file ends, by the sizes of its top-level boxes."""
    position, end = 0, 0
    while position + 8 <= size:
        stream.seek(position)
        head = stream.read(16)
        length, kind = struct.unpack(">I4s", head[:8])
        if length == 1 and len(head) == 16:
            length = struct.unpack(">Q", head[8:])[0]
        if length < 8:  # 0: up to the end of the file; 2..7: not a box, left to the demuxer
            break
        position += length
        if kind in (b"mdat", b"moov", b"moof"):
            end = position
    return end


def short_reason(error: BaseException, path: Path) -> str:
    """The first line of a decoder's message, without parts that differ between runs: time, address, path."""
    said = getattr(error, "strerror", None) or str(error)
    lines = [line.strip() for line in _STAMP.sub("", said).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    for name in (str(path), path.name):
        text = text.replace(name, "the file")
    text = text.removeprefix("[the file]").strip()
    return _ADDRESS.sub("0x..", text)[:_LONGEST_REASON]
