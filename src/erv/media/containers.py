"""What a file is, from its first bytes; every decoder is then told, so that none guesses by itself.

FFmpeg guesses a format by asking all its readers, some of which read playlists (HLS, DASH, concat scripts,
SDP) and open the files and addresses they name. Two versions of FFmpeg can guess differently: a transport
stream behind the text of a playlist was a stream for PyAV, and a playlist for the older FFmpeg in decord. So
the format comes from a list of known beginnings, and files with any other are refused.

decord can't be told a format. It only gets files of which every FFmpeg makes the same: mp4 that begins with a
small `ftyp` box, and Matroska. Neither can be a text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from erv.media.limits import MediaError

# Containers with an index and the time of each picture; their header names all streams.
INDEXED = frozenset({"mov", "matroska"})
_HEAD = 65_536  # bytes to look at
# The first box of an mp4 or mov file, after its four bytes of size.
_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"moof", b"styp"})
# Brands of films. decord gets no other mp4; those are decoded in order with PyAV, to the same pixels.
_BRANDS = frozenset(
    b"isom iso2 iso3 iso4 iso5 iso6 iso7 iso8 iso9 mp41 mp42 avc1 dash mmp4 MSNV XAVC 3gp4 3gp5 3gp6".split()
) | {b"qt  ", b"M4V ", b"M4A ", b"f4v "}
_EBML = b"\x1a\x45\xdf\xa3"
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_PACK, _H264_STARTS = b"\x00\x00\x01\xba", (b"\x00\x00\x01", b"\x00\x00\x00\x01")
_H264_FIRST = frozenset({1, 5, 6, 7, 9})  # types of units that a raw stream begins with
_M4V = b"\x00\x00\x01\xb0"
# Files of sound alone.
_SOUND = (b"ID3", b"fLaC", b"\xff\xf1", b"\xff\xf9", b"\xff\xfb", b"\xff\xfa", b"\xff\xf3", b"\xff\xf2")
_PACKETS = (188, 192, 204)  # bytes, of a transport stream
_SYNC = 0x47
_IN_A_ROW = 5  # synchronisation bytes; fewer only in shorter files
# Texts that name other files: HLS, concat, DASH, Smooth Streaming, PLS, SDP, XSPF, ASX, SMIL. The short ones
# can occur in compressed pictures by chance, so they only count near the beginning.
_LONG_MARKS = re.compile(rb"#EXTM3U|ffconcat|<SmoothStreamingMedia|\[playlist\]|<playlist\b", re.IGNORECASE)
_SHORT_MARKS = re.compile(rb"<MPD\b|\bc=IN IP|<asx\b|<smil\b|^\s*v=0\s", re.IGNORECASE)
_NEAR = 1024  # bytes


def container_of(path: Path) -> str:
    """FFmpeg's name of a video file's format: mov, matroska, avi, flv, mpeg, mpegts, asf, ogg, ...

    Raises:
        MediaError: the file names other files, holds no pictures, or is in no known format.
    """
    with path.open("rb") as stream:
        head = stream.read(_HEAD)
    form = _structured(head)
    if form is not None:
        return form
    # The readers of the formats below skip what they don't know, so a text may come first.
    if _LONG_MARKS.search(head) or _SHORT_MARKS.search(head[:_NEAR]):
        raise MediaError("container can't be read: a playlist, or a file that looks like one to some players")
    if head.startswith(_SOUND):
        raise MediaError("no video track")
    form = _streamed(head)
    if form is None:
        raise MediaError("container can't be read: not a known video format")
    return form


def decord_agrees(path: Path, form: str) -> bool:
    """Whether decord, which guesses a file's format by itself, can only take it for `form`."""
    with path.open("rb") as stream:
        head = stream.read(_NEAR)
    if form == "matroska":
        return _is_plain_matroska(head)
    # The size of the box is below 2^24, so the file begins with a zero byte, as no text does. With a brand of
    # still pictures (JPEG 2000), a stream further on could count for more.
    return form == "mov" and head[:1] == b"\0" and head[4:8] == b"ftyp" and head[8:12] in _BRANDS


def _is_plain_matroska(head: bytes) -> bool:
    """Whether the whole EBML header is near the beginning, as FFmpeg's probe needs it, with a known type."""
    if not head.startswith(_EBML) or len(head) < 5 or head[4] == 0:
        return False
    length = 9 - head[4].bit_length()  # of the size, in bytes
    size = int.from_bytes(head[4 : 4 + length], "big") & ((1 << (7 * length)) - 1)
    end = 4 + length + size
    header = head[4 + length : end]
    return end <= len(head) and (b"matroska" in header or b"webm" in header)


def open_container(path: Path, form: str, **options: str) -> Any:
    """Opens a file with PyAV as the given format; it can open no other file and no address.

    Args:
        path: of the file.
        form: as `container_of` returns it.
        options: more options of FFmpeg's reader.
    """
    import av

    given = {"format_whitelist": form, "protocol_whitelist": "file", **options}
    return av.open(str(path), format=form, options=given, metadata_errors="replace")


def _structured(head: bytes) -> str | None:
    """The format of a file whose readers insist on its first bytes."""
    if head[4:8] in _BOXES:
        return "mov"
    if head.startswith(_EBML):
        return "matroska"
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "avi"
    if head.startswith(b"FLV\x01"):
        return "flv"
    if head.startswith(_ASF):
        return "asf"
    if head.startswith(b"OggS"):
        return "ogg"
    if head.startswith(b"RIFF") and head[8:12] == b"WAVE":
        return "wav"
    return "ivf" if head.startswith(b"DKIF") else None


def _streamed(head: bytes) -> str | None:
    """The format of a stream, whose reader looks for a place to begin."""
    if head.startswith(_PACK):
        return "mpeg"
    if head.startswith(_M4V):
        return "m4v"
    for start in _H264_STARTS:
        if head.startswith(start) and len(head) > len(start) and head[len(start)] & 31 in _H264_FIRST:
            return "h264"
    return "mpegts" if any(_is_transport(head, size) for size in _PACKETS) else None


def _is_transport(head: bytes, size: int) -> bool:
    """Whether packets of a transport stream begin in the first `size` bytes; a recording may cut one."""
    return any(
        len(syncs := head[start::size][:_IN_A_ROW]) > 1 and set(syncs) == {_SYNC} for start in range(size)
    )
