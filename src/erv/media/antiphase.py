"""Finds channels that cancel each other, as from a microphone wired the wrong way round.

Their mix to mono would be silence. It is looked for in every quarter of a second, since a fault can begin in
the middle of a recording, and in any layout of channels: if the mix keeps less than a hundredth of the energy
of an equal mix of two, in which only the loudest channel sounds, the mix is void there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

# Of the loudest channel's energy as the mix weighs it. In stereo that is a hundredth of the channel's energy.
_CANCELLED = 0.04
_QUIET = 1e-3  # RMS of full scale: -60 dB; what is below may be the rounding of a codec
_STEPS_PER_SECOND, _WINDOW = 20, 5  # steps


@dataclass(frozen=True)
class Stretch:
    """A part of a run of sound whose mix is void.

    Attributes:
        start: its first sample.
        end: the sample after its last one; None for the end of the run.
        louder: number of the loudest channel.
    """

    start: int
    end: int | None
    louder: int


@lru_cache(maxsize=64)
def gains(layout: str, channels: int) -> np.ndarray:
    """float32 [channels]: how FFmpeg's mix to mono weighs each channel of a layout; equally if it can't."""
    import av

    values = np.repeat(np.eye(channels, dtype=np.float32), 64, axis=1)
    try:
        frame = av.AudioFrame.from_ndarray(values.T.reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate = 48_000
        resampler = av.AudioResampler(format="flt", layout="mono", rate=48_000)
        mixed = np.concatenate([part.to_ndarray().reshape(-1) for part in resampler.resample(frame)])
    except (av.FFmpegError, ValueError):  # whoever mixes the sound reports it
        return np.full(channels, 1 / channels, np.float32)
    found: np.ndarray = mixed.reshape(channels, 64)[:, 32].copy()
    return found


@dataclass
class Balance:
    """Energy of each channel of a run of sound, and of what a mix to mono leaves of them, step by step.

    Attributes:
        layout: FFmpeg's name of the channels.
        rate: samples per second.
    """

    layout: str
    rate: int
    _channels: list[np.ndarray] = field(default_factory=list)
    _mixed: list[np.ndarray] = field(default_factory=list)
    _rest: np.ndarray | None = None

    def add(self, samples: np.ndarray) -> None:
        """Adds float32 samples [channels, N]; a single channel can't be cancelled and is ignored."""
        if len(samples) < 2:
            return
        if not np.isfinite(samples).all():  # whoever uses the sound reports it
            samples = np.zeros_like(samples)
        if self._rest is not None and self._rest.shape[1]:
            samples = np.concatenate([self._rest, samples], axis=1)
        whole = samples.shape[1] // self._step * self._step
        self._rest = samples[:, whole:]
        if whole:
            self._measure(samples[:, :whole], self._step)

    @property
    def _step(self) -> int:
        return max(1, self.rate // _STEPS_PER_SECOND)

    def _measure(self, samples: np.ndarray, step: int) -> None:
        weights = gains(self.layout, len(samples))
        steps = samples.reshape(len(samples), -1, step)
        mixed = (weights @ samples).reshape(-1, step)
        self._channels.append(np.einsum("csn,csn->sc", steps, steps) * weights**2)
        self._mixed.append(np.einsum("sn,sn->s", mixed, mixed))

    def finish(self) -> None:
        """Measures what is left after the last whole step."""
        if self._rest is not None and self._rest.shape[1]:
            self._measure(self._rest, self._rest.shape[1])
        self._rest = None

    @property
    def sums(self) -> tuple[np.ndarray, float]:
        """float64 [channels], and the mix: energy over the whole run, as the mix weighs it."""
        if not self._channels:
            return np.zeros(1), 0.0
        channels = np.concatenate(self._channels).sum(axis=0, dtype=np.float64)
        return channels, float(np.concatenate(self._mixed).sum(dtype=np.float64))

    def stretches(self) -> list[Stretch]:
        """The parts whose mix is void, in order."""
        if not self._channels:
            return []
        channels, mixed = np.concatenate(self._channels), np.concatenate(self._mixed)
        width = min(_WINDOW, len(mixed))
        loudest, left = _windows(channels, width).max(axis=1), _windows(mixed[:, None], width)[:, 0]
        heaviest = float(np.abs(gains(self.layout, channels.shape[1])).max())
        audible = loudest > (_QUIET * heaviest) ** 2 * width * self._step
        void = np.zeros(len(mixed), bool)
        for place in np.flatnonzero(audible & (left < _CANCELLED * loudest)):
            void[place : place + width] = True
        edges = np.flatnonzero(np.diff(void, prepend=False, append=False)).reshape(-1, 2)
        return [
            Stretch(
                int(begin) * self._step,
                None if end == len(void) else int(end) * self._step,
                int(channels[begin:end].sum(axis=0).argmax()),
            )
            for begin, end in edges
        ]


def void_stretches(runs: Sequence[Balance]) -> list[list[Stretch]]:
    """The void parts of each run; a single one each, with the same channel, if they are void as a whole."""
    for run in runs:
        run.finish()
    if len({run.layout for run in runs}) == 1:
        sums = [run.sums for run in runs]
        channels = sum((channels for channels, _ in sums), np.zeros(1))
        if channels.max() > 0 and sum(mixed for _, mixed in sums) < _CANCELLED * channels.max():
            return [[Stretch(0, None, int(channels.argmax()))] for _ in runs]
    return [run.stretches() for run in runs]


def mixed(samples: np.ndarray, layout: str, start: int, stretches: Sequence[Stretch]) -> np.ndarray:
    """float32 [1, N]: the mix of samples [channels, N], with the loudest channel alone where it is void.

    Args:
        samples: of a run.
        layout: of its channels.
        start: where in the run they begin.
        stretches: of the run.
    """
    mono: np.ndarray = gains(layout, len(samples)) @ samples
    for part in stretches:
        begin, end = max(0, part.start - start), None if part.end is None else max(0, part.end - start)
        mono[begin:end] = samples[part.louder, begin:end]
    return mono[None]


def _windows(values: np.ndarray, width: int) -> np.ndarray:
    """Sums of `width` neighbouring rows: float64 [rows - width + 1, columns]."""
    views = np.lib.stride_tricks.sliding_window_view(values, width, axis=0)
    return np.asarray(views.sum(axis=-1, dtype=np.float64))
