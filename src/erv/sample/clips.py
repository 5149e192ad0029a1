"""Clips of the sample corpus: a face and a voice that show cues over time, as H.264/AAC in an mp4 file.

Every clip has its own random stream (seed, data set, index), so its bytes don't depend on other clips or on
the number of processes.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from PIL import Image

from erv.sample.emotions import EXPRESSIONS, FACE_CUES, ONE_SIDED
from erv.sample.face import FaceRenderer, Pose
from erv.sample.people import draw_person
from erv.sample.voice import SAMPLE_RATE, draw_speaker, prosody, synthesize

FPS = 12
# One thread, and no code paths that differ between processors. With x264's macroblock tree, equal frames gave
# different bytes in different processes.
_H264 = {"crf": "20", "preset": "veryfast", "x264-params": "threads=1:cpu-independent=1:mbtree=0"}
_LIMIT_LUMA = np.array([round(16 + value * 219 / 255) for value in range(256)], np.uint8)
_LIMIT_CHROMA = np.array([round(128 + (value - 128) * 224 / 255) for value in range(256)], np.uint8)
# Keep the task from being trivial: missing cues, channels that show nothing, stray movements.
_DROPPED_CUE = 0.06
_MASKED_CHANNEL = 0.05
_STRAY_MOVEMENT = 0.15
_FACE_STRENGTH = (0.7, 1.0)
_VOICE_STRENGTH = (0.8, 1.1)


@dataclass(frozen=True)
class ClipCues:
    """The cues that are really present in a clip.

    Attributes:
        clip_id: as in the tree.
        emotion: canonical MAFW name.
        action_units: FACS numbers, sorted.
        face_cues: ids of `erv.sample.emotions.FACE_CUES`.
        voice_cues: ids of the voice in `erv.claims.WORDINGS`.
        channel: where the emotion shows: both, face or voice.
    """

    clip_id: str
    emotion: str
    action_units: tuple[int, ...]
    face_cues: tuple[str, ...]
    voice_cues: tuple[str, ...]
    channel: str


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """An independent random stream for a name."""
    words = [zlib.crc32(name.encode()) if isinstance(name, str) else name for name in names]
    return np.random.default_rng([seed, *words])


def draw_cues(clip_id: str, emotion: str, rng: np.random.Generator) -> ClipCues:
    """Draws which of an emotion's cues a clip shows."""
    expression = EXPRESSIONS[emotion]
    shows_face, shows_voice = expression.face != ("face_still",), expression.voice != ("voice_even",)
    face, voice = _some(expression.face, rng), _some(expression.voice, rng)
    masked = rng.random()
    if shows_face and shows_voice and masked < 2 * _MASKED_CHANNEL:
        shows_face, shows_voice = (True, False) if masked < _MASKED_CHANNEL else (False, True)
    channel = "both" if shows_face == shows_voice else "face" if shows_face else "voice"
    face = face if shows_face else ("face_still",)
    voice = voice if shows_voice else ("voice_even",)
    units = sorted({unit for cue in face for unit in FACE_CUES[cue]})
    return ClipCues(clip_id, emotion, tuple(units), face, voice, channel)


def render_clip(cues: ClipCues, rng: np.random.Generator) -> bytes:
    """Renders the face and the voice of a clip and encodes them.

    Args:
        cues: what it shows.
        rng: draws person, voice, timing and movements.

    Returns:
        An mp4 file: H.264 160x160 at 12 frames per second, AAC mono at 16 kHz, about 2 s.
    """
    person = draw_person(rng)
    renderer = FaceRenderer(person, rng)
    count = int(rng.integers(23, 30))
    seconds = count / FPS
    how = prosody(cues.voice_cues, float(rng.uniform(*_VOICE_STRENGTH)))
    audio, loudness = synthesize(how, draw_speaker(rng, person.feminine), seconds, rng)
    frames = [renderer.frame(units, pose) for units, pose in _performance(cues, count, loudness, rng)]
    return encode(frames, audio)


def encode(frames: list[np.ndarray], audio: np.ndarray | None, fps: int = FPS) -> bytes:
    """Encodes uint8 RGB frames [H, W, 3] and int16 mono samples at 16 kHz (or no sound) as an mp4 file.

    One encoder thread and no metadata: the same input gives the same bytes.
    """
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        video = container.add_stream("libx264", rate=fps, options=_H264)
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = "yuv420p"
        video.thread_count = 1
        video.codec_context.flags |= av.codec.context.Flags.bitexact
        sound = None
        if audio is not None:
            sound = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
            sound.bit_rate = 32000
            sound.thread_count = 1
            sound.codec_context.flags |= av.codec.context.Flags.bitexact
        for pixels in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(_to_yuv(pixels), format="yuv420p")))
        container.mux(video.encode(None))
        if sound is not None and audio is not None:
            chunk = av.AudioFrame.from_ndarray(audio[None, :], format="s16", layout="mono")
            chunk.sample_rate, chunk.pts, chunk.time_base = SAMPLE_RATE, 0, Fraction(1, SAMPLE_RATE)
            container.mux(sound.encode(chunk))
            container.mux(sound.encode(None))
    return buffer.getvalue()


def _to_yuv(pixels: np.ndarray) -> np.ndarray:
    """A frame [H, W, 3] as planes 4:2:0 [H * 3 / 2, W], BT.601 limited range; H and W are multiples of 4.

    Done here because FFmpeg's scaler rounds differently depending on buffer alignment, which varies by run.
    """
    height, width = pixels.shape[:2]
    luma, *chroma = Image.fromarray(pixels).convert("YCbCr").split()
    halves = [_LIMIT_CHROMA.take(np.asarray(plane.reduce(2))).reshape(height // 4, width) for plane in chroma]
    return np.concatenate([_LIMIT_LUMA.take(np.asarray(luma)), *halves])


def _performance(
    cues: ClipCues, count: int, loudness: np.ndarray, rng: np.random.Generator
) -> list[tuple[dict[int, float], Pose]]:
    """Action units and pose of each frame: neutral, onset, apex, with blinks and sway."""
    time = np.arange(count) / FPS
    peaks: dict[int, float] = {}
    for cue in cues.face_cues:
        strength = float(rng.uniform(*_FACE_STRENGTH))
        units = [-unit if cue in ONE_SIDED and unit in (2, 12) else unit for unit in FACE_CUES[cue]]
        peaks |= {unit: max(strength, peaks.get(unit, 0.0)) for unit in units}
    if rng.random() < _STRAY_MOVEMENT:
        unit = int(rng.choice([1, 2, 4, 7, 14, 17, 25]))
        peaks[unit] = max(peaks.get(unit, 0.0), float(rng.uniform(0.2, 0.4)))
    onset, rise = float(rng.uniform(0.05, 0.4)), float(rng.uniform(0.2, 0.5))
    ramp = np.clip((time - onset) / rise, 0, 1)
    ramp = ramp * ramp * (3 - 2 * ramp)
    ramp *= 1 - 0.08 * np.sin(2 * np.pi * float(rng.uniform(0.5, 1.5)) * time) ** 2
    still = Pose(
        x=float(rng.uniform(-3, 3)),
        y=float(rng.uniform(-2, 2)),
        scale=float(rng.uniform(0.97, 1.03)),
        side=1 if rng.random() < 0.85 else -1,
    )
    sway = [_sway(time, amount, rng) for amount in (1.6, 1.2, 0.035, 0.05, 0.03, 0.35)]
    blinks = rng.uniform(0.1, time[-1], size=int(rng.integers(1, 3)))
    blink = np.max([np.clip(1.3 - np.abs(time - at) / 0.08, 0, 1) for at in blinks], axis=0)
    speech = np.interp(time, np.arange(len(loudness)) / 100, loudness)
    result = []
    for i in range(count):
        pose = Pose(
            x=still.x + sway[0][i],
            y=still.y + sway[1][i],
            tilt=sway[2][i],
            yaw=sway[3][i],
            pitch=sway[4][i],
            scale=still.scale,
            gaze=sway[5][i],
            blink=float(blink[i]),
            speech=float(speech[i]),
            side=still.side,
        )
        result.append(({unit: peak * float(ramp[i]) for unit, peak in peaks.items()}, pose))
    return result


def _sway(time: np.ndarray, amount: float, rng: np.random.Generator) -> list[float]:
    """A slow movement around a small offset."""
    rate, phase = rng.uniform(0.2, 0.7), rng.uniform(0, 2 * np.pi)
    moved = amount * (rng.uniform(-1, 1) + np.sin(2 * np.pi * rate * time + phase))
    return [float(value) for value in moved]


def _some(cues: tuple[str, ...], rng: np.random.Generator) -> tuple[str, ...]:
    """All cues except the dropped ones; at least one stays."""
    kept = tuple(cue for cue in cues if rng.random() >= _DROPPED_CUE)
    return kept or (cues[int(rng.integers(len(cues)))],)
