"""Clips whose emotion can only be heard, and a small policy that has learned to hear it.

Fear and surprise have the same face in the sample corpus. Two clips of a pair have the same pictures, byte by
byte, and differ in the voice alone.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from erv.manifest import ClipRow
from erv.media.decode import DecodeRule, decode
from erv.policies import Policy, load_policy
from erv.prompts import format_completion
from erv.sample.clips import FPS, encode, stream
from erv.sample.emotions import EXPRESSIONS, FACE_CUES
from erv.sample.face import FaceRenderer, Pose
from erv.sample.people import draw_person
from erv.sample.pretraining import LabelledClip, train_towers
from erv.sample.tiny_policy import build_tiny_policy
from erv.sample.voice import draw_speaker, prosody, synthesize
from erv.shards import Clip, ShardReader, ShardWriter
from erv.training.sft.sft import train_sft
from tests.support.runtime import RUNTIME, machine
from tests.support.sft_policy import SETTINGS
from tests.support.sizes import SMALLEST

PAIR = ("fear", "surprise")
SIZES = replace(SMALLEST, mels=32, window_seconds=2, hop=320, audio_width=32)
RULE = DecodeRule(frames=SIZES.num_frames, size=SIZES.image_size, geometry="stretch", sample_rate=16000)
TEXTS = {
    "fear": format_completion("The voice trembles, as if danger were near.", "fear"),
    "surprise": format_completion("The pitch rises steeply at the end, in astonishment.", "surprise"),
}
_SECONDS, _FACES, _VOICES, _HELD_OUT = 2, 4, 6, 6


def write_heard(folder: Path) -> tuple[list[ClipRow], dict[str, ShardReader]]:
    """Pairs of clips in shards, through the encoder and the decoder; 6 pairs are the test split."""
    rows, clips = [], []
    for number in range(_FACES * _VOICES + _HELD_OUT):
        held_out = number >= _FACES * _VOICES
        person = number if held_out else number % _FACES
        for emotion in PAIR:
            name = f"{number:03d}-{emotion}"
            path = folder / f"{name}.mp4"
            path.write_bytes(encode(_faces(person), _voice(emotion, number)))
            decoded = decode(path, RULE)
            assert decoded.audio is not None
            clips.append(Clip(name, decoded.frames, decoded.audio, RULE.sample_rate))
            split = "test" if held_out else "train"
            text = TEXTS[emotion]
            rows.append(
                ClipRow(
                    name, "mafw", 1, split, emotion, emotion, None, text, "video", "", 0, "", "", "", None
                )
            )
    with ShardWriter(folder / "mafw", clips_per_shard=32) as writer:
        for clip in clips:
            writer.add(clip)
    return rows, {"mafw": ShardReader(folder / "mafw")}


def train_to_hear(folder: Path, rows: list[ClipRow], shards: dict[str, ShardReader]) -> Policy:
    """Trains the audio tower on the voices, then the policy on completions that name the emotion."""
    torch.set_num_threads(1)
    model, processor = build_tiny_policy([*TEXTS.values()] * 3, seed=0, sizes=SIZES)
    labelled = [
        LabelledClip(
            shards["mafw"].get(row.clip_id),
            row.label,
            EXPRESSIONS[row.label].face,
            EXPRESSIONS[row.label].voice,
        )
        for row in rows
        if row.split == "train"
    ]
    train_towers(model, processor, labelled, 0, vision_steps=2, audio_steps=100)
    Policy(model, processor).save(folder / "base")
    return train_sft(
        load_policy(folder / "base"),
        rows,
        shards,
        SETTINGS.model_copy(update={"max_steps": 100, "batch_size": 16, "learning_rate": 5e-3}),
        checkpoints=folder / "checkpoints",
        on_metrics=lambda metrics, step: None,
        seed=0,
        runtime=RUNTIME,
        machine=machine(save_steps=100),
    )


def _faces(person: int) -> list[np.ndarray]:
    """A still face that is as wide awake in fear as in surprise."""
    assert EXPRESSIONS["fear"].face == EXPRESSIONS["surprise"].face
    rng = stream(0, "heard", "face", person)
    units = {unit: 0.9 for cue in EXPRESSIONS["fear"].face for unit in FACE_CUES[cue]}
    renderer = FaceRenderer(draw_person(rng), rng)
    return [renderer.frame(units, Pose())] * (_SECONDS * FPS)


def _voice(emotion: str, number: int) -> np.ndarray:
    rng = stream(0, "heard", emotion, number)
    how = prosody(EXPRESSIONS[emotion].voice, float(rng.uniform(0.8, 1.1)))
    return synthesize(how, draw_speaker(rng, bool(rng.integers(2))), _SECONDS, rng)[0]
