"""Seeded mutations of valid clips: the same number and seed give the same bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import numpy as np

Mutation = Callable[[bytes, bytes, np.random.Generator], bytes]

# Boxes of an mp4 file that hold boxes.
_CONTAINERS = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts"})
# Fields of four bytes (offset in the box, behind its eight of head) that say how much there is.
_FIELDS = {
    b"mvhd": (12, 16),  # time scale, duration
    b"mdhd": (12, 16),
    b"tkhd": (20, 76, 80),  # duration, width, height
    b"stsz": (4, 8, 12, 16),  # one size for all, count, sizes
    b"stts": (4, 8, 12),
    b"stsc": (4, 8, 12, 16),
    b"stco": (4, 8),
    b"stss": (4, 8),
    b"ctts": (4, 8, 12),
    b"elst": (4, 8, 12),
}
# Texts that name files, as players read them; the file exists on every Linux.
_TEXTS = (
    b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n/etc/hostname\n#EXT-X-ENDLIST\n",
    b"ffconcat version 1.0\nfile /etc/hostname\n",
    b"[playlist]\nFile1=/etc/hostname\nNumberOfEntries=1\n",
    b"<MPD profiles='urn:mpeg:dash:profile:isoff-live:2011'><BaseURL>/etc/hostname</BaseURL></MPD>\n",
    b"v=0\r\nc=IN IP4 127.0.0.1\r\nm=video 5000 RTP/AVP 96\r\n",
)
_LARGE = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x10000000, 30_000, 65_535)


def boxes(content: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """Kind, position and size of each box of an mp4 file, nested ones too."""
    end = len(content) if end is None else end
    position = start
    while position + 8 <= end:
        size, kind = struct.unpack(">I4s", content[position : position + 8])
        if size < 8:
            return
        yield kind, position, size
        if kind in _CONTAINERS:
            yield from boxes(content, position + 8, min(end, position + size))
        position += size


def flip_bytes(clip: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Some random bytes become others."""
    content = np.frombuffer(clip, np.uint8).copy()
    places = rng.integers(0, len(content), int(rng.integers(1, 200)))
    content[places] = rng.integers(0, 256, len(places))
    return content.tobytes()


def flip_header(clip: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Bytes of the index become others, those of the media stay."""
    spans = [(position, size) for kind, position, size in boxes(clip) if kind in _FIELDS or kind == b"stsd"]
    content = bytearray(clip)
    for _ in range(int(rng.integers(1, 12))):
        position, size = spans[int(rng.integers(len(spans)))]
        content[position + int(rng.integers(size))] = int(rng.integers(256))
    return bytes(content)


def truncate(clip: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """The end is missing."""
    return clip[: int(rng.integers(1, len(clip)))]


def truncate_streamable(clip: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """The index comes first and the end is missing: what is left could play."""
    return truncate(index_first(clip), other, rng)


def splice(clip: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """The beginning of one file and the end of another."""
    return clip[: int(rng.integers(1, len(clip)))] + other[int(rng.integers(len(other))) :]


def insert(clip: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """A piece of another file in the middle."""
    at, start = int(rng.integers(len(clip))), int(rng.integers(len(other)))
    return clip[:at] + other[start : start + int(rng.integers(1, 4096))] + clip[at:]


def zero_range(clip: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """A stretch is zeros, as after a failed download."""
    start = int(rng.integers(len(clip)))
    stop = min(len(clip), start + int(rng.integers(1, max(2, len(clip) // 3))))
    return clip[:start] + bytes(stop - start) + clip[stop:]


def oversize_box(clip: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """A box claims another size than it has."""
    found = list(boxes(clip))
    _, position, size = found[int(rng.integers(len(found)))]
    claims = (*_LARGE, size - 1, size + 1, size * 2)
    return _put(clip, position, ">I", claims[int(rng.integers(len(claims)))] & 0xFFFFFFFF)


def oversize_field(clip: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """A count, a duration or an offset in the index is enormous."""
    found = [(kind, position) for kind, position, _ in boxes(clip) if kind in _FIELDS]
    kind, position = found[int(rng.integers(len(found)))]
    offset = _FIELDS[kind][int(rng.integers(len(_FIELDS[kind])))]
    return _put(clip, position + 8 + offset, ">I", _LARGE[int(rng.integers(len(_LARGE)))])


def oversize_sample_entry(clip: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Width and height, or channels and sample rate, are enormous."""
    entries = [position + 16 for kind, position, _ in boxes(clip) if kind == b"stsd"]
    at = entries[int(rng.integers(len(entries)))]
    value = int(rng.choice([0, 1, 4096, 8192, 12000, 16384, 30000, 65535]))
    if clip[at + 4 : at + 8] == b"mp4a":
        return _put(clip, at + int(rng.choice([24, 26, 32, 34])), ">H", value)
    wide = _put(clip, at + 32, ">H", value)
    return wide if rng.random() < 0.3 else _put(wide, at + 34, ">H", int(rng.choice([2, 8192, 12000, 30000])))


def repeat_box(clip: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """A top-level box comes twice, or is gone."""
    found = [(position, size) for _, position, size in boxes(clip)]
    position, size = found[int(rng.integers(len(found)))]
    piece = clip[position : position + size] * int(rng.choice([0, 2]))
    return clip[:position] + piece + clip[position + size :]


def damage_media(clip: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Bytes of pictures and sound become others, the index stays."""
    position, size = next((p, s) for kind, p, s in boxes(clip) if kind == b"mdat")
    content = np.frombuffer(clip, np.uint8).copy()
    places = position + 8 + rng.integers(0, size - 8, int(rng.integers(1, 400)))
    content[places] = rng.integers(0, 256, len(places))
    return content.tobytes()


def empty(clip: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Nothing, or next to nothing."""
    return clip[: int(rng.choice([0, 1, 4, 8, 12]))]


def noise(clip: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Random bytes, some of them behind the head of a media file."""
    head = (b"", clip[:32], b"RIFF\xff\xff\xff\x00AVI LIST", b"\x1aE\xdf\xa3", b"#EXTM3U\n", b"FLV\x01")
    return head[int(rng.integers(len(head)))] + rng.bytes(int(rng.integers(1, 20_000)))


def playlist(clip: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """A text that names another file: before a clip, in its first bytes, or in a transport stream."""
    text = _TEXTS[int(rng.integers(len(_TEXTS)))]
    where = int(rng.integers(3))
    if where == 0:
        at = int(rng.integers(64))
        return clip[:at] + text + clip[at + len(text) :]
    if where == 1:
        return text.ljust(188 * int(rng.integers(1, 6)), b"\n") + clip
    head = b"G" + rng.bytes(3) if rng.random() < 0.5 else b""
    packets = [b"G" + rng.bytes(187) for _ in range(int(rng.integers(5, 60)))]
    return (head + text).ljust(188, b"#")[:188] + b"".join(packets)


MUTATIONS: dict[str, Mutation] = {
    mutation.__name__: mutation
    for mutation in (
        flip_bytes,
        flip_header,
        truncate,
        truncate_streamable,
        splice,
        insert,
        zero_range,
        oversize_box,
        oversize_field,
        oversize_sample_entry,
        repeat_box,
        damage_media,
        empty,
        noise,
        playlist,
    )
}


def mutate(clips: list[bytes], number: int, seed: int) -> tuple[str, bytes]:
    """Name and content of a mutation; the kinds take turns."""
    rng = np.random.default_rng([seed, number])
    name = list(MUTATIONS)[number % len(MUTATIONS)]
    clip, other = (clips[int(index)] for index in rng.integers(len(clips), size=2))
    return name, MUTATIONS[name](clip, other, rng)


def _put(content: bytes, position: int, form: str, value: int) -> bytes:
    result = bytearray(content)
    size = struct.calcsize(form)
    if position + size <= len(result):
        result[position : position + size] = struct.pack(form, value)
    return bytes(result)


def index_first(clip: bytes) -> bytes:
    """The file with its index before the media, offsets moved accordingly."""
    top = {kind: (position, size) for kind, position, size in boxes(clip) if kind in (b"moov", b"mdat")}
    (index_at, index_size), (media_at, _) = top[b"moov"], top[b"mdat"]
    index = bytearray(clip[index_at : index_at + index_size])
    for kind, position, _ in list(boxes(bytes(index))):
        if kind == b"stco":
            (count,) = struct.unpack(">I", index[position + 12 : position + 16])
            for entry in range(position + 16, position + 16 + 4 * count, 4):
                (offset,) = struct.unpack(">I", index[entry : entry + 4])
                index[entry : entry + 4] = struct.pack(">I", offset + index_size)
    return clip[:media_at] + bytes(index) + clip[media_at:index_at] + clip[index_at + index_size :]
