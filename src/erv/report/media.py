"""What the page shows and plays of a clip: frames as a picture, sound as a small file, and its waveform."""

from __future__ import annotations

import base64
import io
import math
import struct

import numpy as np

from erv.shards import Clip

FRAMES = 6
FRAME_SIDE = 128  # pixels
AUDIO_SECONDS = 5
AUDIO_RATE = 8000  # Hz
BARS = 120  # of a waveform
_FULL_SCALE = 32768.0


def frames_strip(frames: np.ndarray) -> str:
    """Frames side by side as a WebP data URL.

    Args:
        frames: uint8 RGB [T, H, W, 3].
    """
    from PIL import Image

    picks = np.linspace(0, len(frames) - 1, frames_shown(frames)).round().astype(int)
    strip = Image.new("RGB", (FRAME_SIDE * len(picks), FRAME_SIDE))
    for place, index in enumerate(picks):
        image = Image.fromarray(frames[index]).resize((FRAME_SIDE, FRAME_SIDE), Image.Resampling.BICUBIC)
        strip.paste(image, (place * FRAME_SIDE, 0))
    buffer = io.BytesIO()
    strip.save(buffer, format="WEBP", quality=75)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def frames_shown(frames: np.ndarray) -> int:
    """The number of frames in a clip's picture."""
    return min(FRAMES, len(frames))


def sound(clip: Clip) -> str:
    """The first seconds of a clip's sound as a WAV data URL: 8 kHz, one byte a sample, which browsers play.

    The bytes are those of G.711's mu-law, whose steps grow with loudness: quiet speech keeps its detail,
    which linear samples of eight bits would lose.
    """
    step = max(1, round(clip.sample_rate / AUDIO_RATE))
    rate = clip.sample_rate // step
    audio = _first_seconds(clip).astype(np.float32)
    audio = audio[: len(audio) // step * step].reshape(-1, step).mean(axis=1)
    data = _mu_law(audio)
    # RIFF: `fmt ` (7 is mu-law; mono), `fact` (number of samples), and the data, padded to an even length.
    form = struct.pack("<4sIHHIIHHH", b"fmt ", 18, 7, 1, rate, rate, 1, 8, 0)
    fact = struct.pack("<4sII", b"fact", 4, len(data))
    body = b"WAVE" + form + fact + struct.pack("<4sI", b"data", len(data)) + data + b"\0" * (len(data) % 2)
    file = struct.pack("<4sI", b"RIFF", len(body)) + body
    return "data:audio/wav;base64," + base64.b64encode(file).decode("ascii")


def waveform(clip: Clip) -> tuple[list[int], float | None]:
    """The waveform of what `sound` plays.

    Returns:
        Peaks in percent of the loudest, `BARS` at most, and how loud that is in dB of full scale; no peaks
        and None if the clip is silent or has no sound.
    """
    audio = np.abs(_first_seconds(clip).astype(np.float32))
    loudest = float(audio.max()) if len(audio) else 0.0
    if not loudest:
        return [], None
    peaks = [float(part.max()) for part in np.array_split(audio, min(BARS, len(audio)))]
    return [round(100 * peak / loudest) for peak in peaks], round(20 * math.log10(loudest / _FULL_SCALE), 1)


def seconds(clip: Clip) -> float:
    """How long the clip's sound is, in seconds; `sound` plays its beginning."""
    return len(clip.audio) / clip.sample_rate if clip.sample_rate else 0.0


def _first_seconds(clip: Clip) -> np.ndarray:
    return clip.audio[: AUDIO_SECONDS * clip.sample_rate]


def _mu_law(samples: np.ndarray) -> bytes:
    """Samples as mu-law bytes, by the piecewise linear rule of G.711.

    Args:
        samples: float32 in the range of int16 [n].
    """
    bias, clip = 132, 32635
    whole = np.clip(np.round(samples), -clip, clip).astype(np.int32)
    size = np.abs(whole) + bias
    exponent = np.clip(np.floor(np.log2(size)).astype(np.int32) - 7, 0, 7)
    mantissa = (size >> (exponent + 3)) & 0x0F
    sign = np.where(whole < 0, 0x80, 0)
    return bytes((~(sign | (exponent << 4) | mantissa) & 0xFF).astype(np.uint8))
