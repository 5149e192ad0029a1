"""Checks on a decoded clip that every policy runs before it prepares the clip."""

from __future__ import annotations

import numpy as np

from erv.errors import DataError


def check_clip(
    frames: np.ndarray, audio: np.ndarray, sample_rate: int, *, num_frames: int, image_size: int, rate: int
) -> None:
    """Checks that a clip has the shape, type and sample rate that a policy takes.

    Args:
        frames: the clip's frames; must be uint8 RGB [num_frames, image_size, image_size, 3].
        audio: the clip's sound; must be int16 mono [samples].
        sample_rate: the clip's sample rate in Hz.
        num_frames: number of frames that the policy takes.
        image_size: side in pixels of the frames that the policy takes.
        rate: sample rate in Hz that the policy takes.

    Raises:
        DataError: a shape, a type or the rate differs.
    """
    if frames.dtype != np.uint8 or frames.shape != (num_frames, image_size, image_size, 3):
        raise DataError(
            f"frames are {frames.dtype} {list(frames.shape)}, but this policy takes uint8"
            f" [{num_frames}, {image_size}, {image_size}, 3];"
            f" set extract.frames: {num_frames} and extract.size: {image_size}"
        )
    if audio.dtype != np.int16 or audio.ndim != 1:
        raise DataError(f"audio is {audio.dtype} {list(audio.shape)}, but this policy takes int16 [samples]")
    if sample_rate != rate:
        raise DataError(
            f"audio is sampled at {sample_rate} Hz, but this policy takes {rate} Hz;"
            " set extract.sample_rate accordingly"
        )


def waveform_of(audio: np.ndarray) -> np.ndarray:
    """Int16 mono [n] as float32 in -1..1; one zero if there is no sound, since [] has no log-mel."""
    waveform = audio.astype(np.float32) / 32768.0
    return waveform if waveform.size else np.zeros(1, dtype=np.float32)


__all__ = ["check_clip", "waveform_of"]
