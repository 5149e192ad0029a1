"""Decodes chosen pictures of an H.264 track and skips what they don't need.

A picture of H.264 says whether others may refer to it (`nal_ref_idc`, 7.4.1 of the standard). Most B-frames
are not referred to, and make up about a third of the decoding. Such a picture is skipped unless it is chosen,
and so is everything behind the last chosen picture of its group. What is decoded is decoded in full, so the
chosen pictures are those of a decoder that skips nothing, bit for bit.

Nothing is concealed: where a picture is missing, marked as damaged, or the decoder finds any fault, the
caller decodes the clip in the old way, whose verdict counts. Damage inside a skipped picture is not seen; it
can't show in any chosen one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from erv.media.containers import open_container
from erv.media.header import Header

# Types of units (H.264, table 7-1): slices of pictures, an IDR picture; and those that may be left out with
# the picture that nothing refers to: its slices, supplemental information, delimiters, filler.
_SLICES, _IDR = range(1, 6), 5
_DROPPED_WITH = frozenset({1, 6, 9, 12})
# Pictures whose conversion to RGB is the same in PyAV and decord.
_FORMATS = frozenset({"yuv420p", "yuv422p", "yuv444p", "yuvj420p", "yuvj422p", "yuvj444p"})


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """The packets of a track in decoding order.

    Attributes:
        starts: float64 [N] seconds at which the picture is shown; all different.
        fresh: bool [N], whether decoding can begin with this packet; the first one always is.
        referred: bool [N], whether other pictures may refer to this one.
    """

    starts: np.ndarray
    fresh: np.ndarray
    referred: np.ndarray

    def needed(self, wanted: np.ndarray) -> np.ndarray:
        """Which packets must be decoded for the wanted ones: bool [N], and bool [N]."""
        group, place = np.cumsum(self.fresh), np.arange(len(self.starts))
        last = np.full(len(self.starts) + 1, -1)
        np.maximum.at(last, group[wanted], place[wanted])
        needed: np.ndarray = (self.referred | wanted) & (place <= last[group])
        return needed


class Pictures:
    """Notes of each packet of an H.264 track what `Order` needs; units follow their length (avcC).

    Args:
        length_bytes: bytes of a unit's length field.
    """

    def __init__(self, length_bytes: int) -> None:
        self._length_bytes = length_bytes
        self._starts: list[float] = []
        self._fresh: list[bool] = []
        self._referred: list[bool] = []

    def add(self, start: float, packet: memoryview, *, key: bool) -> None:
        """Notes a packet whose picture is shown at `start` seconds."""
        self._starts.append(start)
        self._fresh.append(key and is_idr(packet, self._length_bytes))
        self._referred.append(not is_unreferred(packet, self._length_bytes))

    def order(self) -> Order | None:
        """The order of the packets; None if pictures can't be told apart by their times."""
        starts = np.array(self._starts, np.float64)
        if not len(starts) or not self._fresh[0] or len(np.unique(starts)) < len(starts):
            return None
        return Order(starts, np.array(self._fresh), np.array(self._referred))


def is_idr(packet: memoryview, length_bytes: int) -> bool:
    """Whether the first unit with a picture is an IDR picture; each unit follows its length."""
    kinds = (head & 31 for head, _ in _units(packet, length_bytes))
    return next((kind == _IDR for kind in kinds if kind in _SLICES), False)


def is_unreferred(packet: memoryview, length_bytes: int) -> bool:
    """Whether the packet is whole and holds nothing but a picture that no other refers to."""
    end, slices = 0, 0
    for head, end in _units(packet, length_bytes):  # noqa: B007  (the last end is used)
        if head & 0xE0 or head & 31 not in _DROPPED_WITH:  # forbidden bit, nal_ref_idc
            return False
        slices += head & 31 == 1
    return slices > 0 and end == len(packet)


def _units(packet: memoryview, length_bytes: int) -> Iterator[tuple[int, int]]:
    """The first byte of each unit, and where the unit ends by its length."""
    at = 0
    while at + length_bytes < len(packet):
        end = at + length_bytes + int.from_bytes(packet[at : at + length_bytes], "big")
        yield packet[at + length_bytes], end
        at = end


def decoded(
    path: Path, header: Header, order: Order, chosen: np.ndarray, options: dict[str, str] | None = None
) -> Iterator[tuple[int, Any]]:
    """Decodes some packets of the video track, those of `chosen`.

    Args:
        path: of the file.
        header: of the file.
        order: of its packets.
        chosen: bool [N], which packets; all that they refer to must be among them.
        options: more options of the decoder.

    Yields:
        The number of the packet, and PyAV's frame.

    Raises:
        SkippingError: anything is not as expected; another way to decode the clip has to decide.
    """
    import av

    numbers = {float(start): number for number, start in enumerate(order.starts)}
    left = int(chosen.sum())

    def named(frames: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        nonlocal left
        for frame in frames:
            number = None if frame.pts is None else numbers.get(frame.pts * unit)
            if number is None or not chosen[number] or frame.is_corrupt:
                raise SkippingError
            left -= 1
            yield number, frame

    try:
        with open_container(path, header.form, skip_frame="all", probesize="32") as container:
            video = container.streams[header.film]
            unit, context = float(video.time_base or 0), video.codec_context
            context.thread_count = 1
            context.options = {"err_detect": "explode", **(options or {})}  # any fault is an error
            packets = (packet for packet in container.demux(video) if packet.size or packet.dts is not None)
            begun = False
            for number, packet in zip(range(len(chosen)), packets, strict=False):
                if order.fresh[number] and begun:  # the end of the last group may be missing
                    yield from named(context.decode(None))
                    context.flush_buffers()
                    begun = False
                if chosen[number]:
                    begun = True
                    yield from named(context.decode(packet))
                if not left:
                    return
            yield from named(context.decode(None))
    except (av.FFmpegError, OSError, ValueError, ArithmeticError, LookupError, RuntimeError) as error:
        raise SkippingError from error
    if left:
        raise SkippingError


class SkippingError(Exception):
    """A clip can't be decoded by parts."""


def taken_pictures(
    path: Path,
    header: Header,
    order: Order,
    wanted: Iterable[int],
    size: tuple[int, int],
    take: Callable[[Any], np.ndarray],
) -> dict[int, np.ndarray] | None:
    """Decodes pictures by their number, as shown.

    Args:
        path: of the file.
        header: of the file.
        order: of its packets.
        wanted: numbers of pictures, from 0.
        size: width and height that pictures must have.
        take: what to make of PyAV's frame.

    Returns:
        What `take` made of each picture; None if the clip has to be decoded in another way.
    """
    shown = np.argsort(order.starts)
    packets = {int(shown[number]): number for number in wanted}
    is_wanted = np.zeros(len(shown), bool)
    is_wanted[list(packets)] = True
    taken: dict[int, np.ndarray] = {}
    try:
        for packet, frame in decoded(path, header, order, order.needed(is_wanted)):
            if packet in packets:
                if not _is_plain(frame, size):
                    return None
                taken[packets[packet]] = take(frame)
    except SkippingError:
        return None
    return taken if len(taken) == len(packets) else None


def _is_plain(frame: Any, size: tuple[int, int]) -> bool:
    """Whether PyAV's RGB of a frame is known to equal decord's; that of interlaced ones differs in colour."""
    whole = (frame.width, frame.height) == size and not frame.interlaced_frame
    return whole and frame.format.name in _FORMATS
