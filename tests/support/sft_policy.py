"""The smallest cold start: a policy, ten clips in shards and their explanations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from erv.manifest import ClipRow
from erv.policies import Policy, load_policy
from erv.prompts import format_completion
from erv.sample.tiny_policy import build_tiny_policy
from erv.settings import LoraSettings, SftSettings
from erv.shards import Clip, ShardReader, ShardWriter
from erv.training.sft.sft import train_sft
from tests.support.runtime import MACHINE, RUNTIME
from tests.support.sizes import SMALLEST

SETTINGS = SftSettings(
    max_steps=2,
    epochs=None,
    batch_size=4,
    packing=False,
    gradient_checkpointing=False,
    learning_rate=1e-3,
    warmup_share=0.1,
    weight_decay=0.01,
    max_grad_norm=1.0,
    lora=LoraSettings(enabled=False, rank=4, alpha=8, dropout=0.0, quantize="none"),
)
TEXTS = {
    "anger": format_completion("The voice is loud. She seems angry. Her fist is clenched.", "anger"),
    "fear": format_completion("The voice trembles.", "fear"),
}
Weights = dict[str, torch.Tensor]


def clip_row(number: int, split: str = "train") -> ClipRow:
    label = sorted(TEXTS)[number % 2]
    name = f"sample_{number:08d}"
    return ClipRow(
        name, "reasoning", 0, split, label, label, None, TEXTS[label], "video", "", 0, "", "", "", None
    )


ROWS = [clip_row(number, "validation" if number >= 8 else "train") for number in range(10)]


def write_clips(folder: Path) -> dict[str, ShardReader]:
    """Red clips are angry, blue ones afraid; clip 3 has no sound."""
    random = np.random.default_rng(0)
    with ShardWriter(folder / "reasoning", clips_per_shard=4) as writer:
        for number, row in enumerate(ROWS):
            frames = random.integers(0, 60, (2, 32, 32, 3), dtype=np.uint8)
            frames[..., 2 * (row.label == "fear")] += 180
            sound = number != 3
            audio = random.integers(-900, 900, 16000 * sound).astype(np.int16)
            writer.add(Clip(row.clip_id, frames, audio, 16000, has_audio=sound))
    return read_clips(folder)


def read_clips(folder: Path) -> dict[str, ShardReader]:
    return {"reasoning": ShardReader(folder / "reasoning")}


def write_base(folder: Path) -> Path:
    torch.set_num_threads(1)
    Policy(*build_tiny_policy([*TEXTS.values()] * 3, seed=2, sizes=SMALLEST)).save(folder)
    return folder


def train(
    base: Path, shards: dict[str, ShardReader], checkpoints: Path, settings: SftSettings, **changes: Any
) -> Policy:
    options: dict[str, Any] = {
        "checkpoints": checkpoints,
        "on_metrics": lambda metrics, step: None,
        "seed": 0,
        "runtime": RUNTIME,
        "machine": MACHINE,
    }
    return train_sft(load_policy(base), ROWS, shards, settings, **(options | changes))


def weights(policy: Policy) -> Weights:
    return {name: value.clone() for name, value in policy.model.state_dict().items()}


def largest_difference(one: Weights, other: Weights) -> float:
    assert set(one) == set(other)
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def update_difference(one: Weights, other: Weights, start: Weights) -> float:
    """How far apart two updates of `start` are, as a share of the first one's length.

    The largest difference of a weight says little here: AdamW's first step divides a gradient by its own
    size, so one that is zero but for rounding (5e-10, where others are 1e-3) moves its weight by a few
    percent of a full step.
    """
    assert set(one) == set(other) == set(start)
    apart = sum(float((one[name] - other[name]).double().square().sum()) for name in one)
    length = sum(float((one[name] - start[name]).double().square().sum()) for name in one)
    return (apart / length) ** 0.5
