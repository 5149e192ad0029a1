"""The voice of the sample corpus: syllables of a source-filter model whose prosody carries an emotion.

A glottal pulse train plus breath noise passes through the formants of changing vowels. Pitch, loudness,
tempo, pauses, tremor and breath follow the vocal cues of the clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

SAMPLE_RATE = 16000
_HOP, _WINDOW = 160, 512

# First three formants in Hz of a, e, i, o, u (adult male; scaled up for other speakers).
_VOWELS = np.array(
    [[730, 1090, 2440], [530, 1840, 2480], [280, 2250, 2900], [570, 840, 2410], [310, 870, 2250]], float
)


@dataclass(frozen=True)
class Prosody:
    """How something is spoken; neutral by default.

    Attributes:
        pitch: factor on the speaker's pitch.
        accent: how far the pitch moves per syllable, in semitones.
        slope: pitch movement from start to end, in semitones; negative falls.
        rate: syllables per second.
        level: loudness in decibels relative to neutral.
        tremor: depth of a 7 Hz tremor, 0..1.
        breath: share of noise, 0..1.
        tilt: brightness of the source in decibels per octave relative to neutral; positive is harsh.
        pauses: share of syllables followed by a pause.
        onset: 0..1, how much louder the first syllables are.
    """

    pitch: float = 1.0
    accent: float = 1.0
    slope: float = -1.5
    rate: float = 4.2
    level: float = 0.0
    tremor: float = 0.0
    breath: float = 0.05
    tilt: float = 0.0
    pauses: float = 0.05
    onset: float = 0.0


_CHANGES: dict[str, dict[str, float]] = {
    "voice_loud": {"level": 7.0},
    "voice_harsh": {"tilt": 5.0, "pitch": 1.12, "breath": 0.12, "rate": 4.8},
    "voice_melodic": {"accent": 5.0, "pitch": 1.3, "level": 3.0, "slope": 1.0},
    "voice_fast": {"rate": 6.2},
    "voice_even": {"accent": 0.3, "slope": -0.5},
    "voice_slow": {"rate": 2.5, "level": -5.0},
    "voice_falling": {"slope": -7.0, "pitch": 0.88, "tilt": -3.0},
    "voice_trembling": {"tremor": 1.0, "rate": 5.4},
    "voice_high": {"pitch": 1.4, "level": -1.0},
    "voice_rising": {"slope": 10.0, "pitch": 1.15, "accent": 2.0},
    "voice_sudden": {"level": 5.0, "onset": 1.0, "pauses": 0.2},
    "voice_faint": {"level": -8.0, "breath": 0.6, "tilt": -4.0},
    "voice_halting": {"pauses": 0.6, "rate": 3.2},
}


def prosody(cues: Sequence[str], strength: float = 1.0) -> Prosody:
    """The prosody of vocal cues; `strength` 0 is neutral speech, 1 the full cue."""
    result = Prosody()
    for cue in cues:
        changed = {}
        for name, value in _CHANGES[cue].items():
            neutral = getattr(Prosody(), name)
            changed[name] = getattr(result, name) + strength * (value - neutral)
        result = replace(result, **changed)
    return result


@dataclass(frozen=True)
class Speaker:
    """A voice: pitch in Hz, vocal tract scale, loudness in decibels."""

    pitch: float
    tract: float
    level: float


def draw_speaker(rng: np.random.Generator, feminine: bool) -> Speaker:
    """Draws a voice."""
    pitch = 200.0 if feminine else 118.0
    return Speaker(
        pitch=pitch * float(np.exp(rng.normal(0, 0.07))),
        tract=(1.16 if feminine else 1.0) * float(rng.uniform(0.96, 1.04)),
        level=float(rng.normal(0, 1.0)),
    )


def synthesize(
    how: Prosody, speaker: Speaker, seconds: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Speaks nonsense syllables.

    Args:
        how: the prosody.
        speaker: who speaks.
        seconds: length.
        rng: draws syllables, vowels, pauses and noise.

    Returns:
        int16 samples [seconds * 16000] and the loudness 0..1 per 10 ms, which moves the lips.
    """
    samples = round(seconds * SAMPLE_RATE)
    frames = samples // _HOP + 1
    loudness, accents, vowels = _syllables(how, frames, rng)
    time = np.arange(frames) / frames
    shiver = np.sin(2 * np.pi * 7.0 * np.arange(frames) * _HOP / SAMPLE_RATE + rng.uniform(0, 6))
    semitones = how.slope * (time - 0.5) + how.accent * accents + 1.3 * how.tremor * shiver
    frequency = speaker.pitch * how.pitch * 2 ** (semitones / 12)
    grid = np.arange(samples) / _HOP
    phase = np.cumsum(np.interp(grid, np.arange(frames), frequency)) / SAMPLE_RATE
    source = _glottal(phase % 1.0) + how.breath * rng.normal(0, 0.5, samples)
    source += 0.003 * rng.normal(0, 1.0, samples)
    voiced = _filter(source, vowels, speaker.tract, how.tilt)
    envelope = loudness * (1 + 0.6 * how.tremor * shiver) * (1 + 1.2 * how.onset * np.exp(-time / 0.15))
    voiced *= np.interp(grid, np.arange(frames), envelope)
    voiced /= np.sqrt(np.mean(voiced**2)) + 1e-9
    gain = 0.075 * 10 ** ((how.level + speaker.level) / 20)
    room = 0.0012 * rng.normal(0, 1.0, samples)
    pcm = np.tanh(voiced * gain + room) * 32000
    return np.round(pcm).astype(np.int16), np.clip(loudness, 0, 1)


def _syllables(
    how: Prosody, frames: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Loudness [frames], pitch accent [frames] and formants [frames, 3]."""
    loudness, accents = np.zeros(frames), np.zeros(frames)
    formants = np.zeros((frames, 3))
    start = int(rng.integers(4, 14))
    formants[:] = _VOWELS[0]
    sign = 1.0
    while start < frames - 6:
        length = max(6, round(100 / how.rate * float(rng.uniform(0.8, 1.2))))
        stop = min(start + length, frames)
        shape = np.sin(np.pi * np.linspace(0, 1, length)) ** 0.7
        loudness[start:stop] = (shape * rng.uniform(0.7, 1.0))[: stop - start]
        accents[start:stop] = (sign * np.sin(np.pi * np.linspace(0, 1, length)) * rng.uniform(0.5, 1.0))[
            : stop - start
        ]
        formants[start:] = _VOWELS[int(rng.integers(len(_VOWELS)))]
        sign = -sign
        start = stop + (int(rng.integers(14, 30)) if rng.random() < how.pauses else 1)
    kernel = np.hanning(9) / np.hanning(9).sum()
    smooth = np.stack(
        [np.convolve(np.pad(column, 4, "edge"), kernel, "valid") for column in formants.T], axis=1
    )
    return loudness, accents, smooth


def _glottal(phase: np.ndarray) -> np.ndarray:
    """A pulse per period: slow opening, quick closing (after Rosenberg 1971), differentiated."""
    table = np.linspace(0, 1, 257)
    opening = 0.5 * (1 - np.cos(np.pi * table / 0.55))
    closing = np.cos(np.pi / 2 * (table - 0.55) / 0.2)
    flow = np.where(table < 0.55, opening, np.where(table < 0.75, closing, 0.0))
    slope = np.gradient(flow) * 25
    wave: np.ndarray = np.interp(phase, table, slope)
    return wave


def _filter(source: np.ndarray, formants: np.ndarray, tract: float, tilt: float) -> np.ndarray:
    """Passes the source through moving resonances, by short-time Fourier transform with overlap."""
    hz = np.fft.rfftfreq(_WINDOW, 1 / SAMPLE_RATE)
    centers = formants * tract
    widths = np.array([70.0, 100.0, 160.0])
    response = np.zeros((len(formants), len(hz)))
    for index, weight in enumerate((1.0, 0.6, 0.35)):
        response += weight / (1 + ((hz[None, :] - centers[:, index, None]) / widths[index]) ** 2)
    response *= 10 ** (tilt * np.log2(np.maximum(hz, 100) / 500) / 20)
    padded = np.pad(source, (_WINDOW // 2, _WINDOW))
    count = min(len(formants), (len(padded) - _WINDOW) // _HOP)
    starts = np.arange(count) * _HOP
    window = np.hanning(_WINDOW)
    blocks = padded[starts[:, None] + np.arange(_WINDOW)] * window
    shaped = np.fft.irfft(np.fft.rfft(blocks, axis=1) * response[:count], axis=1) * window
    result = np.zeros(len(padded))
    for start, block in zip(starts, shaped, strict=True):
        result[start : start + _WINDOW] += block
    return result[_WINDOW // 2 : _WINDOW // 2 + len(source)]
