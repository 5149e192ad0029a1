"""Pretrains the tiny policy's projectors on its frozen towers, as HumanOmni's are trained on descriptions.

The released checkpoint's projectors already carry what the towers see and hear. Random ones learn only part
of it in the few hundred steps of the cold start, and which part differs from seed to seed. Each projector
learns to tell the emotion and the cues of its own channel. The heads are discarded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

from erv.policies.humanomni import HumanOmniForConditionalGeneration, HumanOmniProcessor
from erv.sample.pretraining import (
    LabelledClip,
    TowerData,
    augment_frames,
    augment_mels,
    classification_loss,
    fit,
    label_names,
    prepare,
)

STEPS = 300
_COPIES = 4  # of each clip's features; the first is of the clip as it is, the others are augmented
_CHUNK = 32
_RATE = 1e-3
_BRANCHES = 3


def align_projectors(
    model: HumanOmniForConditionalGeneration,
    processor: HumanOmniProcessor,
    clips: Sequence[LabelledClip],
    seed: int,
    *,
    steps: int = STEPS,
    progress: Callable[[str], None] = lambda line: None,
) -> Callable[[Sequence[LabelledClip]], dict[str, float]]:
    """Trains both projectors in place; the towers stay as they are.

    Args:
        model: the tiny policy with trained towers, on the CPU.
        processor: its processor.
        clips: labelled clips.
        seed: of order, augmentation and heads.
        steps: optimiser steps of 32 clips, of each projector.
        progress: called with a line now and then.

    Returns:
        A function that measures both projectors on other clips: `vision` and `audio` are the shares of clips
        whose emotion can be told from the mean of the projector's tokens.
    """
    names = label_names(clips)
    data = prepare(clips, processor, names)
    inner, config = model.model, model.config
    hidden, per_frame = config.text_config.hidden_size, config.tokens_per_frame
    by_eye, by_ear = (torch.Generator().manual_seed(2 * seed + channel) for channel in (0, 1))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        see = nn.Linear(hidden * per_frame, len(names[0]) + len(names[1]))
        hear = nn.Linear(hidden, len(names[0]) + len(names[2]))

    def seen(features: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        tokens = inner.visual_projector(features, shares)
        frames = tokens.reshape(len(features), -1, per_frame, hidden)
        # The first quarter of a clip is often still neutral.
        logits: torch.Tensor = see(frames[:, frames.shape[1] // 4 :].mean(1).flatten(1))
        return logits

    def heard(features: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = hear(inner.audio_projector(features).mean(1))
        return logits

    def learn_to_see() -> None:
        features = _copies(data, model, by_eye, "video_features")

        def loss(rows: torch.Tensor) -> torch.Tensor:
            # Every branch must be of use, however the gate mixes them.
            shares = torch.softmax(0.3 * torch.randn(len(rows), _BRANCHES, generator=by_eye), dim=-1)
            logits = seen(features[_drawn(features, rows, by_eye), rows], shares)
            return classification_loss(logits, data.emotions[rows], data.face[rows])

        fit([inner.visual_projector, see], loss, len(clips), steps, _RATE, by_eye, _named("visual", progress))

    def learn_to_hear() -> None:
        features = _copies(data, model, by_ear, "audio_features")

        def loss(rows: torch.Tensor) -> torch.Tensor:
            logits = heard(features[_drawn(features, rows, by_ear), rows])
            return classification_loss(logits, data.emotions[rows], data.voice[rows])

        fit([inner.audio_projector, hear], loss, len(clips), steps, _RATE, by_ear, _named("audio", progress))

    # In parallel threads, as the towers.
    with ThreadPoolExecutor(2) as pool:
        for learning in [pool.submit(learn_to_see), pool.submit(learn_to_hear)]:
            learning.result()
    model.eval()

    @torch.no_grad()
    def measure(others: Sequence[LabelledClip]) -> dict[str, float]:
        held = prepare(others, processor, names)
        features = model.encode_clips(held.frames.float() / 127.5 - 1, held.mels)
        shares = torch.full((len(others), _BRANCHES), 1 / _BRANCHES)
        told = {
            "vision": seen(features["video_features"], shares),
            "audio": heard(features["audio_features"]),
        }
        return {
            channel: (logits[:, : len(names[0])].argmax(1) == held.emotions).float().mean().item()
            for channel, logits in told.items()
        }

    return measure


def _copies(
    data: TowerData, model: HumanOmniForConditionalGeneration, generator: torch.Generator, kind: str
) -> torch.Tensor:
    """A tower's features of every clip, several times: [copies, clips, ...]."""
    copies = []
    for number in range(_COPIES):
        encoded = []
        for start in range(0, len(data.emotions), _CHUNK):
            rows = slice(start, start + _CHUNK)
            if kind == "audio_features":
                mels = augment_mels(data.mels[rows], generator) if number else data.mels[rows]
                encoded.append(model.encode_clips(input_features=mels)[kind])
            else:
                pixels = data.frames[rows].flatten(0, 1)
                shown = augment_frames(pixels, generator) if number else pixels.float() / 127.5 - 1
                shaped = shown.unflatten(0, data.frames[rows].shape[:2])
                encoded.append(model.encode_clips(pixel_values=shaped)[kind])
        copies.append(torch.cat(encoded))
    return torch.stack(copies)


def _drawn(features: torch.Tensor, rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Which copy of each clip to learn from."""
    return torch.randint(0, len(features), (len(rows),), generator=generator)


def _named(projector: str, progress: Callable[[str], None]) -> Callable[[str], None]:
    return lambda line: progress(f"{projector} projector: {line}")
