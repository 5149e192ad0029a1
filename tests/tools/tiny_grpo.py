"""What a GRPO run of seconds needs: settings, a cold start with random weights, two clips."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from erv.policies import Policy
from erv.policies.tiny import build_tiny_policy
from erv.policy_settings import GrpoSettings
from erv.prompts import format_completion, user_content
from erv.settings import RuntimeSettings
from erv.shards import Clip, ShardReader, ShardWriter
from tests.tools.sizes import SMALLEST

RUNTIME = RuntimeSettings(device="cpu", dtype="float32", threads=1, accelerate=None, processes=1)
CLIPS = ("00000", "00001")


def grpo_settings(**changes: Any) -> GrpoSettings:
    """Two clips a step, two completions of up to six tokens each."""
    values: dict[str, Any] = {
        "max_steps": 3,
        "epochs": None,
        "prompts_per_step": 2,
        "num_generations": 2,
        "num_iterations": 1,
        "learning_rate": 1e-3,
        "beta": 0.04,
        "temperature": 1.0,
        "max_completion_length": 6,
        "loss_type": "grpo",
        "scale_rewards": "group",
        "importance_sampling": "token",
        "epsilon": 0.2,
        "epsilon_high": 0.2,
        "semantics": "strict",
        "shaping": {"min_sentences": 1, "min_words": None, "max_words": None, "max_named": None},
        "freeze_projectors": False,
        "rows_per_pass": None,
        "gradient_checkpointing": False,
        "save_steps": 1,
        "sample_steps": 2,
        "collapse_patience": None,
        "lora": {"enabled": False, "rank": 4, "alpha": 8, "dropout": 0.0, "quantize": "none"},
        "variants": {"erv": {"rewards": [{"name": "format", "weight": 1.0}]}},
    }
    return GrpoSettings.model_validate(values | changes)


def write_cold_start(folder: Path) -> Path:
    """A policy folder with random weights."""
    texts = [format_completion(f"The person smiles and {n} tears run over.", "happiness") for n in range(40)]
    Policy(*build_tiny_policy(texts, seed=3, sizes=replace(SMALLEST, vocabulary=400))).save(folder)
    return folder


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
