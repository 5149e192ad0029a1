"""Decodes the sound of a clip to mono, in step with its pictures.

PyAV decodes and mixes it, like a player, with three cares:

- Sound begins when the first picture is shown. If the file lets it start later, silence comes first; what
  comes before the first picture is left out. A gap of more than a tenth of a second stays a gap.
- Channels in antiphase, as from a microphone wired the wrong way round, would cancel each other. Where that
  happens, the loudest channel is taken alone (`erv.media.antiphase`).
- A packet that can't be decoded costs only itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from erv.media.antiphase import Balance, Stretch, mixed, void_stretches
from erv.media.containers import INDEXED, open_container
from erv.media.limits import MAX_SECONDS, MediaError, short_reason

_GAP_SECONDS = 0.1
_MOST_PLANES = 7  # PyAV reads beyond the end of its list of planes if there are more
# Resampling some seconds at once takes half the time of resampling each packet.
_SECONDS_AT_ONCE = 5.0


@dataclass
class _Run:
    """Sound without a gap.

    Attributes:
        start: its time in seconds; None if unknown.
        format: sample format, layout and rate of its frames.
        samples: how many there are.
        mixed: how many of them are in `pieces`.
        pieces: mono samples at the target's rate, float32.
        balance: of its channels.
    """

    start: float | None
    format: tuple[str, str, int]
    samples: int = 0
    mixed: int = 0
    pieces: list[np.ndarray] = field(default_factory=list)
    balance: Balance = field(init=False)

    def __post_init__(self) -> None:
        self.balance = Balance(self.format[1], self.format[2])

    @property
    def end(self) -> float | None:
        return None if self.start is None else self.start + self.samples / self.format[2]


def packed(frame: Any) -> Any:
    """PyAV's frame, with its samples interleaved if it has more planes than PyAV can read."""
    import av

    if not frame.format.is_planar or frame.layout.nb_channels <= _MOST_PLANES:
        return frame
    (interleaved,) = av.AudioResampler("flt", frame.layout, frame.sample_rate).resample(frame)
    return interleaved


def channels_of(frame: Any) -> np.ndarray:
    """float32 [channels, samples] of PyAV's frame, integers scaled to -1..1."""
    values: np.ndarray = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    if values.dtype.kind not in "iu":
        return np.ascontiguousarray(values, np.float32)
    half = 2.0 ** (8 * values.dtype.itemsize - 1)
    zero = half if values.dtype.kind == "u" else 0.0
    return np.ascontiguousarray((values - zero) / half, np.float32)


def check_start(seconds: float) -> None:
    """Raises MediaError if sound and pictures are further apart than any clip is long."""
    if abs(seconds) > MAX_SECONDS:
        raise MediaError(
            f"sound starts {seconds:.0f} s after the pictures, at most {MAX_SECONDS:.0f} s is taken"
        )


def read_sound(path: Path, form: str, voice: int, rate: int, origin: float | None) -> np.ndarray | None:
    """Decodes a sound track.

    Args:
        path: of a file that `erv.media.header.read_header` accepted.
        form: of its header.
        voice: number of its sound track, of its header.
        rate: samples per second of the result.
        origin: time of the first picture in seconds; None if unknown, which starts the sound at once.

    Returns:
        int16 mono samples; None if the track is empty.

    Raises:
        MediaError: the sound can't be decoded, or holds values that are not numbers.
    """
    import av

    try:
        runs, fault = _runs(path, form, voice, rate)
        void = void_stretches([run.balance for run in runs])
        if any(void):
            runs, fault = _runs(path, form, voice, rate, void)
    except (av.FFmpegError, OSError, ValueError, ArithmeticError, LookupError) as error:
        raise MediaError(f"sound can't be decoded: {short_reason(error, path)}") from error
    if not any(run.samples for run in runs):
        if fault is not None:
            raise MediaError(f"sound can't be decoded: {fault}")
        return None
    samples = _placed(runs, rate, origin)
    if not samples.size:
        return None
    if not np.isfinite(samples).all():
        raise MediaError("sound holds values that are not numbers")
    rounded: np.ndarray = np.round(np.clip(samples, -1.0, 1.0) * 32767).astype(np.int16)
    return rounded


def _placed(runs: list[_Run], rate: int, origin: float | None) -> np.ndarray:
    """float32 mono samples from the first picture on, with silence where there is no sound."""
    parts: list[np.ndarray] = []
    length = 0
    for run in runs:
        samples = np.concatenate(run.pieces) if run.pieces else np.empty(0, np.float32)
        if run.start is not None and origin is not None:
            if not parts:
                check_start(run.start - origin)
            ahead = round((run.start - origin) * rate) - length
            if ahead > 0 and (not parts or ahead < MAX_SECONDS * rate):
                parts.append(np.zeros(ahead, np.float32))
            elif ahead < 0 and not length:
                samples = samples[-ahead:]
        parts.append(samples)
        length = sum(map(len, parts))
    return np.concatenate(parts)


def _runs(
    path: Path, form: str, voice: int, rate: int, void: list[list[Stretch]] | None = None
) -> tuple[list[_Run], str | None]:
    """The runs of a track, and the first fault of a packet; `void` are parts of each run to mix otherwise."""
    import av

    runs: list[_Run] = []
    resampler, waiting, held = None, [], 0

    def flush(*, final: bool) -> None:
        """Resamples the frames that wait; the last ones of a run with what the resampler still holds."""
        nonlocal resampler, waiting, held
        if resampler is None:
            return
        if waiting:
            joined = _joined(waiting, runs[-1], void[len(runs) - 1] if void else [])
            runs[-1].pieces += [mono.to_ndarray().reshape(-1) for mono in resampler.resample(joined)]
        if final:
            runs[-1].pieces += [mono.to_ndarray().reshape(-1) for mono in resampler.resample(None)]
            resampler = None
        waiting, held = [], 0

    fault: list[str] = []
    for frame in _frames(path, form, voice, fault):
        start = None if frame.pts is None else float(frame.pts * frame.time_base)
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        end = runs[-1].end if runs else None
        late = start is not None and end is not None and start - end > _GAP_SECONDS
        if not runs or kind != runs[-1].format or late:
            flush(final=True)
            runs.append(_Run(start, kind))
            resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
        waiting.append(frame)
        held += frame.samples
        runs[-1].samples += frame.samples
        if held > _SECONDS_AT_ONCE * frame.sample_rate:
            flush(final=False)
    flush(final=True)
    return runs, fault[0] if fault else None


def _joined(frames: list[Any], run: _Run, void: list[Stretch]) -> Any:
    """One frame with the samples of all, which have the same format; mono if the run has void parts."""
    import av

    first, start = frames[0], run.mixed
    if first.layout.nb_channels > 1:
        values = np.concatenate([channels_of(frame) for frame in frames], axis=1)
        run.balance.add(values)
        run.mixed += values.shape[1]
    if void:
        mono = mixed(values, first.layout.name, start, void)
        joined = av.AudioFrame.from_ndarray(mono, format="fltp", layout="mono")
    elif first.layout.nb_channels == 2 and first.format.name == "fltp":
        joined = av.AudioFrame.from_ndarray(values, format="fltp", layout=first.layout.name)  # as they are
    else:
        samples = np.concatenate([frame.to_ndarray() for frame in frames], axis=1)
        joined = av.AudioFrame.from_ndarray(samples, format=first.format.name, layout=first.layout.name)
    joined.sample_rate = first.sample_rate
    return joined


def _frames(path: Path, form: str, voice: int, fault: list[str]) -> Iterator[Any]:
    """The decoded frames of a sound track; faults of packets are added to the list."""
    import av

    # Don't decode pictures to learn more than the header states: 1 ms instead of 4 for a clip of 3 s.
    options = {"skip_frame": "all", **({"probesize": "32"} if form in INDEXED else {})}
    with open_container(path, form, **options) as container:
        track = container.streams[voice]
        if track.codec_context is None:
            fault.append("no decoder for it")
            return
        track.codec_context.thread_count = 1
        for packet in container.demux(track):
            try:
                yield from map(packed, packet.decode())
            except (av.FFmpegError, ValueError) as error:
                fault.append(short_reason(error, path))
