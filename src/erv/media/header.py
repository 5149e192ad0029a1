"""What a container claims, read without decoding any of it, and checked against `erv.media.limits`."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from erv.media.containers import container_of, open_container
from erv.media.limits import MediaError, check_length, check_size, check_sound, short_reason
from erv.media.tracks import film_of, is_clear, voice_of

# Decode nothing and read nothing beyond the header: 0.7 ms a clip instead of 8.
_HEADER_ONLY = {"skip_frame": "all", "probesize": "32"}
# Look for streams that are announced only in packets as far as decoders do: FFmpeg's default.
_LONGER_LOOK = {"skip_frame": "all"}
# Containers whose header lists all streams; others (FLV, MPEG-PS, MPEG-TS) may list only some or none.
_NAME_ALL_STREAMS = frozenset({"mov", "matroska", "avi", "asf"})
_UNKNOWN_SIZES = frozenset({0, 0xFFFFFFFF})


@dataclass(frozen=True)
class Header:
    """What a container claims.

    Attributes:
        width: of the pictures, in pixels.
        height: in pixels.
        frames: pictures according to the index of an mp4 file; 0 for containers without a reliable number.
        film: number of the video track that a player shows, in the container.
        voice: number of the sound track that a player plays with it; None without one.
        films: how many video tracks there are, cover pictures included.
        shown: how many pictures a player shows, if the edit list of an mp4 file hides some (see
            `erv.media.sequential`); None for all other clips.
        form: FFmpeg's first name for the container: mov, matroska, avi, ...
        ratio: width of a pixel over its height, as the container states it; None if it doesn't.
    """

    width: int
    height: int
    frames: int
    film: int
    voice: int | None
    films: int
    shown: int | None = None
    form: str = "mov"
    ratio: float | None = None


def read_header(path: Path) -> Header:
    """Reads what a video file claims to be, without decoding any of it.

    Raises:
        MediaError: it is not a media file, names other files, has no video track, is cut off, or exceeds the
            limits.
    """
    if not path.stat().st_size:
        raise MediaError("the file is empty")
    form = container_of(path)
    header = _claims(path, form, _HEADER_ONLY) or _claims(path, form, _LONGER_LOOK, last=True)
    if header is None:
        raise MediaError("no video track")
    if not header.width or not header.height:
        raise MediaError("video track has no size")
    check_size(header.width, header.height)
    check_size(*shown_size(header.width, header.height, header.ratio or 1.0))
    missing = missing_bytes(path)
    if missing:
        raise MediaError(f"truncated: the file lacks its last {missing} bytes")
    return header


def shown_size(width: int, height: int, ratio: float) -> tuple[int, int]:
    """Width and height of pictures as a player shows them, with pixels made square by enlarging.

    Args:
        width: in pixels.
        height: in pixels.
        ratio: width of a pixel over its height.
    """
    if ratio >= 1:
        return round(width * ratio), height
    return width, round(height / ratio)


def _claims(path: Path, form: str, options: dict[str, str], *, last: bool = False) -> Header | None:
    """What the container claims; None without a video track, or if reading further may find more."""
    import av

    try:
        with open_container(path, form, **options) as container:
            video = film_of(container)
            if video is None:
                return None
            voice = voice_of(container, video)
            if video.codec_context is None:
                raise MediaError("no decoder for the video track")
            sized = bool(video.width and video.height)
            if not last and not (sized and form in _NAME_ALL_STREAMS and is_clear(container)):
                return None
            seconds = container.duration / av.time_base if container.duration else 0.0
            timed = [track for track in container.streams if track.duration and track.time_base]
            seconds = max([seconds, *(float(track.duration * track.time_base) for track in timed)])
            check_length(seconds, video.frames)
            for sound in container.streams.audio:
                check_sound(sound.codec_context)
            size = (video.width or 0, video.height or 0)
            ratio = float(video.sample_aspect_ratio or 0) or None
            index = form == "mov"
            return Header(
                *size,
                video.frames if index else 0,
                film=video.index,
                voice=None if voice is None else voice.index,
                films=len(container.streams.video),
                shown=_shown_pictures(path, video) if index else None,
                form=form,
                ratio=ratio,
            )
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
    check_length(0.0, len(index))
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
    with open_container(path, "mov", **_HEADER_ONLY, ignore_editlist="1") as container:
        return len(container.streams[stream].index_entries)


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
