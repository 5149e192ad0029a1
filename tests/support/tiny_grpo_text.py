"""Inputs of a GRPO run that takes seconds: settings, a cold start with random weights, two clips."""

from pathlib import Path
from typing import Any

import numpy as np

from erv.prompts import user_content
from erv.settings import GrpoSettings
from erv.shards import Clip, ShardReader, ShardWriter
from tests.support.tiny_grpo import settings

CLIPS = ("00000", "00001")


def grpo_settings(**changes: Any) -> GrpoSettings:
    """Two clips per step, two completions of up to six tokens each."""
    few = {"max_steps": 3, "prompts_per_step": 2, "max_completion_length": 6}
    return settings(**few | changes)


def write_clips(folder: Path) -> ShardReader:
    """Shards of `CLIPS`."""
    random = np.random.default_rng(0)
    with ShardWriter(folder, clips_per_shard=2) as writer:
        for clip_id in CLIPS:
            frames = random.integers(0, 255, (2, 32, 32, 3), dtype=np.uint8)
            audio = random.integers(-9000, 9000, 12000).astype(np.int16)
            writer.add(Clip(clip_id, frames, audio, 16000, has_audio=True))
    return ShardReader(folder)


def clip_rows() -> list[dict[str, Any]]:
    """The rows of `CLIPS`, as `build_rows` gives them."""
    return [
        {
            "prompt": [{"role": "user", "content": user_content(audio=True)}],
            "clip": f"mafw/{clip_id}",
            "solution": "<answer>happiness</answer>",
            "dataset": "mafw",
            "clip_id": clip_id,
        }
        for clip_id in CLIPS
    ]
