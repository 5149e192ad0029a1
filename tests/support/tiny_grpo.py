"""What tests of GRPO train: a policy of a few thousand weights, eight random clips, cheap rewards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from erv.manifest import ClipRow
from erv.policies import Policy
from erv.prompts import format_completion
from erv.rewards.credit import Credit, Credited
from erv.sample.tiny_policy import build_tiny_policy
from erv.settings import GrpoSettings, LoraSettings
from erv.shards import Clip, ShardReader, ShardWriter
from erv.training.grpo.grpo import build_rows
from tests.support.sizes import SMALLEST

SIZES = replace(SMALLEST, mels=32, vocabulary=400)
CLIPS = [f"{number:05d}" for number in range(8)]
LORA = LoraSettings(enabled=True, rank=4, alpha=8, dropout=0.0, quantize="none")
_WORDS = [
    "the",
    "person",
    "smiles",
    "and",
    "the",
    "voice",
    "is",
    "loud",
    "while",
    "tears",
    "run",
    "over",
    "a",
    "pale",
    "face",
]


def settings(**changes: Any) -> GrpoSettings:
    """The section `grpo`: two steps of four prompts with two completions each."""
    values: dict[str, Any] = {
        "max_steps": 2,
        "epochs": None,
        "prompts_per_step": 4,
        "num_generations": 2,
        "num_iterations": 1,
        "learning_rate": 1e-3,
        "beta": 0.04,
        "temperature": 1.0,
        "greedy_rollout": False,
        "generation": "transformers",
        "generation_ratio_cap": 3.0,
        "max_completion_length": 8,
        "loss_type": "grpo",
        "scale_rewards": "group",
        "credit": "completion",
        "importance_sampling": "token",
        "epsilon": 0.2,
        "epsilon_high": 0.2,
        "semantics": "strict",
        "shaping": {
            "min_sentences": 1,
            "min_words": None,
            "max_words": None,
            "max_named": None,
            "min_content_words": None,
            "min_cues": None,
            "max_conclusions": None,
            "max_repeats": None,
            "repeats_earn": 0.0,
        },
        "freeze_projectors": False,
        "gradient_checkpointing": False,
        "collapse_patience": None,
        "lora": {"enabled": False, "rank": 4, "alpha": 8, "dropout": 0.0, "quantize": "none"},
    }
    return GrpoSettings.model_validate(values | changes)


def write_cold_start(folder: Path) -> Path:
    """A policy with random weights and a tokenizer for a few words."""
    texts = [format_completion(" ".join(_WORDS[n % 7 :]) + ".", "happiness") for n in range(40)]
    Policy(*build_tiny_policy(texts, seed=3, sizes=SIZES)).save(folder)
    return folder


def write_shards(folder: Path) -> Path:
    """Eight random clips in three shards; the last one has no sound."""
    random = np.random.default_rng(0)
    with ShardWriter(folder, clips_per_shard=3) as writer:
        for clip_id in CLIPS:
            silent = clip_id == CLIPS[-1]
            frames = random.integers(0, 255, (2, 32, 32, 3), dtype=np.uint8)
            audio = random.integers(-9000, 9000, 0 if silent else 12000).astype(np.int16)
            writer.add(Clip(clip_id, frames, audio, 16000, has_audio=not silent))
    return folder


def manifest_row(clip_id: str, split: str = "train", dataset: str = "mafw") -> ClipRow:
    """A row of the manifest."""
    return ClipRow(
        clip_id=clip_id,
        dataset=dataset,
        fold=1,
        split=split,
        label="happiness",
        raw_label="happiness",
        caption=None,
        completion=None,
        media="video",
        uri=f"s3://erv-raw/{clip_id}",
        bytes=1,
        sha256="0",
        label_from="",
        split_from="",
        caption_from=None,
    )


def training_rows(shards: dict[str, ShardReader]) -> list[dict[str, Any]]:
    """The rows of all eight clips."""
    return build_rows([[manifest_row(clip_id) for clip_id in CLIPS]], shards)


def text(completion: Any) -> str:
    """The text of a completion."""
    return completion[0]["content"]


def many_letters(completions: list[Any], **columns: Any) -> list[float]:
    """A reward: the number of different characters."""
    return [float(len(set(text(completion)))) for completion in completions]


def letter_e(completions: list[Any], **columns: Any) -> list[float]:
    """A reward: how often the letter e occurs."""
    return [float(text(completion).count("e")) for completion in completions]


class Halves:
    """Letters of a completion, and whether its first half has more of them than its second."""

    def __call__(self, *, completions: list[Any], **columns: Any) -> list[float]:
        """The number of different letters in each."""
        return many_letters(completions)

    def credited(self, *, completions: list[Any], **columns: Any) -> list[Credited]:
        """The same, with a credit for each half."""
        found = []
        for said in map(text, completions):
            middle = len(said) // 2
            halves = (Credit(0, middle, len(set(said[:middle]))), Credit(middle, len(said), 0.0))
            found.append(Credited(float(len(set(said))), halves))
        return found
