"""Policies and clips of the sizes that `benchmarks/grpo.py` measures, all with random weights.

- tiny: what `make demo` trains
- 50m: about 50 million parameters in the proportions of the released model: towers that cost more than the
  prompt, a prompt that is longer than its completion
- 0.5b, 7b: the released sizes; for a GPU
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from erv.policies import Policy
from erv.policies.humanomni import HumanOmniForConditionalGeneration
from erv.prompts import format_completion
from erv.sample.tiny_policy import TinySizes, build_tiny_policy, tiny_config
from erv.shards import Clip, ShardReader, ShardWriter

DATASET, SAMPLE_RATE = "mafw", 16000
_WORDS = ["the", "person", "smiles", "and", "a", "loud", "voice", "while", "tears", "run", "over", "faces"]


@dataclass(frozen=True)
class Size:
    """A policy's sizes and how much of it one step trains.

    Attributes:
        policy: widths and depths, as for the tiny policy.
        prompts: distinct clips of a step.
        completion: tokens of every completion.
        changes: values that replace those of the tiny policy's configuration, by section.
        projector: which projector.
    """

    policy: TinySizes
    prompts: int
    completion: int
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    projector: Literal["all_in_one_small", "all_in_one"] = "all_in_one_small"


_WHISPER_LARGE = {"encoder_attention_heads": 20, "encoder_ffn_dim": 5120}
_BERT_BASE = {
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
}
_HALF_BILLION = TinySizes(
    image_size=224,
    vision_width=768,
    vision_layers=11,
    mels=128,
    window_seconds=30,
    hop=160,
    audio_width=1280,
    audio_layers=32,
    hidden=896,
    layers=24,
    heads=14,
    mlp=4864,
    gate_width=768,
)

SIZES = {
    "tiny": Size(TinySizes(), prompts=16, completion=80),
    "50m": Size(
        TinySizes(
            image_size=128,
            vision_width=256,
            vision_layers=8,
            mels=80,
            window_seconds=6,
            hop=160,
            audio_width=320,
            audio_layers=10,
            hidden=384,
            layers=8,
            heads=6,
            mlp=1536,
            gate_width=128,
        ),
        prompts=2,
        completion=64,
        changes={
            "text_config": {"vocab_size": 16000, "num_key_value_heads": 2},
            "vision_config": {"intermediate_size": 1024},
            "audio_config": {"encoder_ffn_dim": 1280},
        },
    ),
    "0.5b": Size(
        _HALF_BILLION,
        prompts=2,
        completion=256,
        changes={
            "text_config": {"vocab_size": 151936, "num_key_value_heads": 2, "max_position_embeddings": 32768},
            "vision_config": {"intermediate_size": 3072, "num_attention_heads": 12},
            "audio_config": _WHISPER_LARGE,
            "gate_config": _BERT_BASE,
        },
    ),
    "7b": Size(
        replace(
            _HALF_BILLION,
            image_size=384,
            patch_size=14,
            vision_width=1152,
            vision_layers=26,
            hidden=3584,
            layers=28,
            heads=28,
            mlp=18944,
        ),
        prompts=2,
        completion=256,
        changes={
            "text_config": {
                "vocab_size": 152064,
                "num_key_value_heads": 4,
                "max_position_embeddings": 32768,
                "tie_word_embeddings": False,
            },
            "vision_config": {"intermediate_size": 4304, "num_attention_heads": 16},
            "audio_config": _WHISPER_LARGE,
            "gate_config": _BERT_BASE,
        },
        projector="all_in_one",
    ),
}


def build_policy(size: Size, device: str = "cpu") -> Policy:
    """A policy of this size with random weights of seed 0, float32."""
    texts = [format_completion(" ".join(_WORDS[n % 9 :]) + ".", "happiness") for n in range(60)]
    # The processor asks only for the sizes of what a clip becomes: a model of one layer will do for it.
    thin = replace(
        size.policy, hidden=32, heads=2, mlp=32, layers=1, vision_layers=1, audio_layers=1, gate_width=32
    )
    small, processor = build_tiny_policy(texts, 0, thin)
    config = tiny_config(processor.tokenizer, len(processor.gate_tokenizer), size.policy)
    for section, values in size.changes.items():
        for name, value in values.items():
            setattr(getattr(config, section), name, value)
    config.projector_type = size.projector
    config.tie_word_embeddings = config.text_config.tie_word_embeddings
    torch.manual_seed(0)
    with torch.device(device):
        model = HumanOmniForConditionalGeneration(config)
    model.generation_config = small.generation_config
    return Policy(model.eval(), processor)


def write_clips(folder: Path, size: Size, count: int) -> ShardReader:
    """So many clips of noise."""
    random = np.random.default_rng(0)
    side, seconds = size.policy.image_size, size.policy.window_seconds
    with ShardWriter(folder, clips_per_shard=32) as writer:
        for number in range(count):
            frames = random.integers(0, 255, (size.policy.num_frames, side, side, 3), dtype=np.uint8)
            audio = random.integers(-9000, 9000, seconds * SAMPLE_RATE).astype(np.int16)
            writer.add(Clip(f"{number:05d}", frames, audio, SAMPLE_RATE))
    return ShardReader(folder)
