"""What a clip looks and sounds like, in a form that survives re-encoding, scaling and a slight trim.

The picture is a coarse one: the luma of a few frames on a grid of cells. Two clips are compared by the
correlation of their cells, which ignores brightness and contrast. The sound is its energy in bands of
frequency over time. Two sounds are compared by the correlation of their changes in loudness, at the best of
all shifts of up to half a second, so that a trimmed copy is recognised and steady noise says nothing.

Measured on the sample corpus, 1640 clips of about 26 frames, and on copies of 40 of them. Worst copies,
re-encoded at CRF 35 or scaled by 0.5: frames 0.998, sound 0.97; smaller, darker and quieter without three
frames at each end: frames 0.976, sound 0.94; without the first six frames: 0.944 and 0.88. Most similar of
the 1.3 million pairs of different clips: frames 0.985; and sound 0.75 among the 7,175 pairs whose frames
reach 0.9.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from erv.shards import Clip

CELLS = 16  # per side of a frame
BANDS = 16
WINDOW_SECONDS = 0.064
HOP_SECONDS = 0.032
MOST_SHIFT = 16  # hops
_LOWEST_HERTZ, _HIGHEST_HERTZ = 100.0, 7000.0
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_FLAT = 1.0  # of 255: frames with less contrast have nothing to compare
_SILENT = 1e-3  # of full scale, RMS
_STEADY = 0.05  # decades: sound that changes less says nothing
_RANGE = 4.0  # decades below the loudest; what is quieter is lost in re-encoding
_OVERLAP = 0.7  # share of the longer sound that must overlap


@dataclass(frozen=True)
class Fingerprint:
    """The picture and the sound of a clip.

    Attributes:
        frames: float32 [T * CELLS * CELLS] of length 1, with mean 0 in each frame; None if they are flat.
        sound: float32 [hops, BANDS], log10 of the energy less the mean of each band; None if the clip is
            silent, or its sound doesn't change.
    """

    frames: np.ndarray | None
    sound: np.ndarray | None


def fingerprint(clip: Clip) -> Fingerprint:
    """The fingerprint of a decoded clip."""
    sound = _sound(clip.audio, clip.sample_rate) if clip.has_audio and clip.audio.size else None
    return Fingerprint(_frames(clip.frames), sound)


def sound_similarity(one: np.ndarray, other: np.ndarray) -> float:
    """The largest correlation of two sounds over all shifts, -1 to 1.

    Args:
        one: as in `Fingerprint.sound`.
        other: likewise.
    """
    best, longest = -1.0, max(len(one), len(other))
    for shift in range(-MOST_SHIFT, MOST_SHIFT + 1):
        a, b = one[max(0, shift) :], other[max(0, -shift) :]
        overlap = min(len(a), len(b))
        if overlap < _OVERLAP * longest:
            continue
        a, b = a[:overlap].ravel(), b[:overlap].ravel()
        scale = float(np.sqrt((a @ a) * (b @ b)))
        if scale > 0:
            best = max(best, float(a @ b) / scale)
    return best


def _frames(frames: np.ndarray) -> np.ndarray | None:
    """Cells of uint8 RGB [T, H, W, 3], see `Fingerprint`."""
    height, width = frames.shape[1:3]
    rows, columns = _edges(height), _edges(width)
    sums = np.add.reduceat(frames, rows[:-1], axis=1, dtype=np.uint32)
    sums = np.add.reduceat(sums, columns[:-1], axis=2)
    area = np.diff(rows)[:, None, None] * np.diff(columns)[None, :, None]
    luma = (sums / area).astype(np.float32) @ _LUMA
    cells = luma.reshape(len(frames), -1)
    flat: np.ndarray = (cells - cells.mean(axis=1, keepdims=True)).ravel()
    length = float(np.linalg.norm(flat))
    return None if length < _FLAT * np.sqrt(flat.size) else flat / length


def _edges(size: int) -> np.ndarray:
    return np.linspace(0, size, min(CELLS, size) + 1).astype(int)


def _sound(audio: np.ndarray, rate: int) -> np.ndarray | None:
    """Energies of int16 mono sound, see `Fingerprint`."""
    wave = audio.astype(np.float32) / 32768.0
    if np.sqrt(np.mean(wave**2)) < _SILENT:
        return None
    window, hop = round(WINDOW_SECONDS * rate), round(HOP_SECONDS * rate)
    wave = np.pad(wave, (0, max(0, window - wave.size)))
    pieces = np.lib.stride_tricks.sliding_window_view(wave, window)[::hop]
    power = np.abs(np.fft.rfft(pieces * np.hanning(window).astype(np.float32))) ** 2
    top = min(_HIGHEST_HERTZ, rate / 2)
    edges = np.searchsorted(np.fft.rfftfreq(window, 1 / rate), np.geomspace(_LOWEST_HERTZ, top, BANDS + 1))
    energy = np.stack(
        [power[:, low : max(low + 1, high)].sum(axis=1) for low, high in itertools.pairwise(edges)],
        axis=1,
    )
    level = np.log10(energy + 1e-9)
    level = np.maximum(level, level.max() - _RANGE)
    changes: np.ndarray = (level - level.mean(axis=0)).astype(np.float32)
    return None if float(changes.std()) < _STEADY else changes
