"""Probes a video: one pass over its packets and its sound, and a few of its pictures.

It decodes some key frames and everything after the last one, because a broken copy usually lacks its end. The
few clips whose edit list hides pictures are decoded as in `erv.media.decode`.

Most H.264 clips are looked at quickly first: without the pictures that no other refers to (but with the last
ones), and without the filter that smooths the edges of blocks, which changes the mean luma by about 1. A clip
that is bright and without a fault needs no more; any other is looked at in full, and that look counts. Damage
in a picture that no other refers to is not seen, unless it is one of the last.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from erv.media.antiphase import Balance, void_stretches
from erv.media.containers import INDEXED, open_container
from erv.media.header import Header, read_header
from erv.media.limits import MediaError, check_size, short_reason
from erv.media.seeking import pictures_of
from erv.media.sequential import shown_pictures
from erv.media.skipping import Order, SkippingError, decoded
from erv.media.sound import channels_of, check_start, packed
from erv.media.timing import Times
from erv.validate.probes import LOOKS, QUIETEST_DB, THUMBNAIL, Probe, luma, spread

_BRIGHT = 48.0  # mean luma from which on a quick look suffices
_END = 4  # last packets of a clip, decoded even if no other picture refers to them
_TAIL_LOOKS = 8  # pictures after the last key frame to measure the brightness of
# Pictures that a decoder may drop after the last key frame: those that refer to earlier ones, and a few bad
# ones.
_LEADING = 2
_TAIL_MISSING = 0.1
# What PyAV and numpy raise for malformed content.
_BAD_CONTENT = (OSError, ValueError, ArithmeticError, LookupError, MemoryError, RuntimeError)
_WRONG = 0.5  # seconds between what a header's rate makes of a clip and what its pictures say
_PROMISE_KEPT = 0.8  # share of the seconds in the header that must be present


def probe_video(path: Path) -> Probe:
    """Probes a video; never raises for bad content."""
    import av

    bad_content = (av.FFmpegError, *_BAD_CONTENT)
    try:
        header = read_header(path)
        packets, sound = _read_packets(path, header)
        late = _lateness(packets, sound)
    except MediaError as error:
        return Probe(fault=str(error))
    except bad_content as error:
        return Probe(fault=f"container can't be read: {short_reason(error, path)}")
    times = packets.times
    by_time = times is not None and not times.regular
    seconds, rate = packets.frames / packets.rate if packets.rate else None, packets.rate or None
    if times is not None and times.seconds and (by_time or abs(times.seconds - (seconds or 0.0)) > _WRONG):
        seconds, rate = times.seconds, packets.frames / times.seconds
    common: dict[str, Any] = {
        "seconds": seconds,
        "frames": packets.frames,
        "fps": rate,
        "width": packets.width,
        "height": packets.height,
        "has_audio": sound.samples > 0,
        "audio_seconds": sound.seconds,
        "loudness_db": sound.loudness_db(),
        "variable_rate": by_time,
        "sound_after": late,
        "antiphase": any(void_stretches(sound.balances)),
        "pixel_ratio": packets.ratio,
    }
    fault, brightness = packets.fault, None
    longest = max(common["seconds"] or 0.0, sound.seconds)
    if fault is None and longest < _PROMISE_KEPT * packets.promised:
        fault = f"truncated: {longest:.1f} of {packets.promised:.1f} s"
    if fault is None:
        try:
            if header.shown is None:
                brightness = _quick_look(path, header, packets)
                if brightness is None or brightness < _BRIGHT:
                    fault, brightness = _look(path, header, packets)
            else:
                brightness = _brightness_of_shown(path, header, header.shown)
        except MediaError as error:
            fault = str(error)
        except bad_content as error:
            fault = f"video can't be decoded: {short_reason(error, path)}"
    return Probe(fault=fault or sound.fault, brightness=brightness, **common)


@dataclass
class _Packets:
    """A video track, as read from its packets.

    Attributes:
        width: of the pictures, in pixels.
        height: in pixels.
        rate: pictures per second.
        declared: expected number of pictures: the container's, or those that its edit list shows.
        promised: seconds of the longest track according to the file's header.
        keys: for each packet, in decoding order, whether it is a key frame.
        hidden: packets whose pictures the edit list hides.
        starts: when the pictures that it shows are shown, in seconds, in decoding order.
        last: for how many seconds the last one is shown.
        start: when the track starts, in seconds.
        ratio: width of a pixel over its height; 1 if the file doesn't state it.
        order: of the packets, if pictures can be skipped.
    """

    width: int
    height: int
    rate: float
    declared: int
    promised: float = 0.0
    keys: list[bool] = field(default_factory=list)
    hidden: int = 0
    starts: list[float | None] = field(default_factory=list)
    last: float = 0.0
    start: float | None = None
    ratio: float = 1.0
    order: Order | None = None

    @property
    def times(self) -> Times | None:
        return Times.of(self.starts, self.last)

    @property
    def frames(self) -> int:
        return len(self.keys) - self.hidden

    @property
    def fault(self) -> str | None:
        if not self.keys:
            return "video track has no frames"
        if self.declared > self.frames:
            return f"truncated: {self.frames} of {self.declared} frames"
        return None


@dataclass
class _Sound:
    """Sums over the sound track."""

    samples: int = 0
    seconds: float = 0.0
    energy: float = 0.0
    values: int = 0
    error: str | None = None
    finite: bool = True
    start: float | None = None
    balances: list[Balance] = field(default_factory=list)

    def add(self, frame: Any) -> None:
        values = channels_of(frame)
        layout, rate = frame.layout.name, frame.sample_rate
        if not self.balances or (self.balances[-1].layout, self.balances[-1].rate) != (layout, rate):
            self.balances.append(Balance(layout, rate))
        self.balances[-1].add(values)
        if not self.samples and frame.pts is not None:
            self.start = float(frame.pts * frame.time_base)
        flat = values.astype(np.float64).ravel()
        self.finite = self.finite and bool(np.isfinite(flat).all())
        if self.finite:
            self.energy += float(flat @ flat)
        self.values += flat.size
        self.samples += frame.samples
        self.seconds += frame.samples / frame.sample_rate if frame.sample_rate else 0.0

    @property
    def fault(self) -> str | None:
        if not self.finite:
            return "sound holds values that are not numbers"
        if not self.samples and self.error is not None:
            return f"sound can't be decoded: {self.error}"
        return None

    def loudness_db(self) -> float | None:
        if not self.values or not self.finite:
            return None
        mean = self.energy / self.values
        return max(QUIETEST_DB, 10.0 * math.log10(mean)) if mean > 0 else QUIETEST_DB


def _lateness(packets: _Packets, sound: _Sound) -> float:
    """Seconds from the first picture to the first sound, 0 if unknown; raises as `check_start`."""
    begin = packets.start if packets.times is None else float(packets.times.starts[0])
    if begin is None or sound.start is None:
        return 0.0
    check_start(sound.start - begin)
    return sound.start - begin


def _read_packets(path: Path, header: Header) -> tuple[_Packets, _Sound]:
    """Reads all packets and decodes the sound."""
    import av

    sound, shown = _Sound(), header.shown
    with open_container(path, header.form) as container:
        video = container.streams[header.film]
        rate = video.average_rate or video.guessed_rate
        declared = video.frames if shown is None else shown
        packets = _Packets(video.width, video.height, float(rate or 0), declared)
        unit, newest = float(video.time_base or 0), None
        pictures = pictures_of(video) if header.form in INDEXED and shown is None else None
        packets.ratio = float(video.sample_aspect_ratio or 0) or 1.0
        packets.start = None if video.start_time is None else video.start_time * unit
        # Other containers only estimate it, or state the number of frames.
        if "matroska" in container.format.name and container.duration:
            packets.promised = container.duration / av.time_base
        streams = [video]
        if header.voice is not None:
            audio = container.streams[header.voice]
            if audio.codec_context is None:
                sound.error = "no decoder for it"
            else:
                audio.codec_context.thread_count = 1
                streams.append(audio)
        for packet in container.demux(*streams):
            if packet.stream is video:
                if packet.size:
                    packets.keys.append(packet.is_keyframe)
                    if shown is not None and packet.is_discard:
                        packets.hidden += 1
                    else:
                        packets.starts.append(None if packet.pts is None else packet.pts * unit)
                        if packet.pts is None:
                            pictures = None
                        elif pictures is not None:
                            pictures.add(packet.pts * unit, memoryview(packet), key=packet.is_keyframe)
                        if packet.pts is not None and (newest is None or packet.pts >= newest):
                            newest, packets.last = packet.pts, float(packet.duration or 0) * unit
                continue
            try:
                for frame in packet.decode():
                    sound.add(packed(frame))
            except (av.FFmpegError, ValueError) as error:  # only this packet: its neighbours may be intact
                sound.error = sound.error or short_reason(error, path)
    order = None if pictures is None else pictures.order()
    if order is not None and np.array_equal(order.fresh, packets.keys):
        packets.order = order
    return packets, sound


def _quick_look(path: Path, header: Header, packets: _Packets) -> float | None:
    """Decodes what `_look` does, without pictures that no other refers to; None unless all of it decodes."""
    order = packets.order
    if order is None:
        return None
    count = len(order.starts)
    keys = np.flatnonzero(order.fresh)
    chosen = np.arange(count) >= keys[-1]
    tail = int(chosen.sum())
    chosen &= order.referred | (np.arange(count) >= count - _END)
    chosen[[*spread([int(key) for key in keys[:-1]], LOOKS), int(order.starts.argmax())]] = True
    every = max(1, tail // _TAIL_LOOKS)
    looked = chosen & (order.fresh | (np.arange(count) % every == 0))
    looked[order.starts.argmax()] = True
    brightest = -1.0
    try:
        for number, frame in decoded(path, header, order, chosen, {"skip_loop_filter": "all"}):
            check_size(frame.width, frame.height)
            if looked[number]:
                brightest = max(brightest, _brightness(frame))
    except SkippingError:
        return None
    return brightest


def _look(path: Path, header: Header, packets: _Packets) -> tuple[str | None, float | None]:
    """Decodes some key frames and everything after the last one; returns a fault or None, and the brightness.

    Every chosen packet comes with all it refers to, so there is no seeking: files from arbitrary sources have
    wrong indices more often than wrong pictures.
    """
    import av

    last = max((i for i, key in enumerate(packets.keys) if key), default=0)
    chosen = spread([i for i, key in enumerate(packets.keys[:last]) if key], LOOKS)
    tail = len(packets.keys) - last
    errors: list[str] = []
    brightest, final = -1.0, None
    found = {False: 0, True: 0}  # pictures of the key frames, and of the tail
    every = max(1, tail // _TAIL_LOOKS)
    with open_container(path, header.form) as container:
        video = container.streams[header.film]
        video.codec_context.thread_count = 1

        def take(packet: Any, in_tail: bool) -> None:
            nonlocal brightest, final
            try:
                for frame in packet.decode() if packet is not None else video.decode(None):
                    check_size(frame.width, frame.height)
                    if not in_tail or found[True] % every == 0:
                        brightest = max(brightest, _brightness(frame))
                    final = frame
                    found[in_tail] += 1
            except av.FFmpegError as error:
                errors.append(short_reason(error, path))

        newest = None
        for index, packet in enumerate(_video_packets(container, video)):
            if index >= last:
                if packet.pts is not None:
                    newest = packet.pts if newest is None else max(newest, packet.pts)
                take(packet, True)
            elif index in chosen:
                take(packet, False)
        take(None, True)
        if final is not None:
            brightest = max(brightest, _brightness(final))
    # A decoder may return a key frame's picture together with the next one's, but it doesn't invent pictures.
    why = f": {errors[0]}" if errors else ""
    wanted, decoded = len(chosen) + tail, found[False] + found[True]
    if final is None:
        return f"no frame can be decoded{why}", None
    if newest is not None and final.pts is not None and final.pts < newest:
        return f"the last frames can't be decoded{why}", brightest
    if wanted - decoded > int(_TAIL_MISSING * tail) + (_LEADING if tail > 2 * _LEADING else 0):
        return f"{wanted - decoded} of the {wanted} frames looked at can't be decoded{why}", brightest
    return None, brightest


def _brightness_of_shown(path: Path, header: Header, shown: int) -> float:
    """Decodes all that an edit list shows; returns the brightest of some pictures, including the last."""
    every = max(1, shown // _TAIL_LOOKS)
    return max(
        _brightness(frame)
        for number, frame in enumerate(shown_pictures(path, header.form, header.film, shown))
        if number % every == 0 or number == shown - 1
    )


def _video_packets(container: Any, video: Any) -> Iterator[Any]:
    return (packet for packet in container.demux(video) if packet.size)


def _brightness(frame: Any) -> float:
    small = frame.reformat(width=THUMBNAIL, height=THUMBNAIL, format="rgb24", threads=1).to_ndarray()
    return luma(small)
