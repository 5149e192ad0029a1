"""Policies and clips of the sizes that `benchmarks/grpo.py` measures, all with random weights.

- tiny: what `make demo` trains
- 50m: about 50 million parameters in the proportions of the released model: towers that cost more than the
  prompt, and a prompt that is longer than its completion
- 0.5b, 7b: the released sizes; for a GPU
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from erv.doctor.dry_run import released_config
from erv.doctor.policy_sizes import RELEASED
from erv.policies import Policy
from erv.policies.humanomni import HumanOmniForConditionalGeneration
from erv.prompts import format_completion
from erv.sample.tiny_policy import TinySizes, build_tiny_policy, tiny_config
from erv.shards import Clip, ShardReader, ShardWriter

DATASET, SAMPLE_RATE = "mafw", 16000
_WORDS = ["the", "person", "smiles", "and", "a", "loud", "voice", "while", "tears", "run", "over", "faces"]


@dataclass(frozen=True)
class Size:
    """The sizes of a policy and of a step.

    Attributes:
        policy: widths and depths, as for the tiny policy.
        prompts: number of distinct clips in a step.
        completion: tokens of every completion.
        changes: values that replace those of the tiny policy's configuration, by section.
        released: model of `RELEASED` to take the sizes from; `policy` then only describes the clips.
    """

    policy: TinySizes
    prompts: int
    completion: int
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    released: str | None = None


_CLIPS = TinySizes(image_size=224, mels=128, window_seconds=30, hop=160)  # as SigLIP and Whisper take them
# BERT-base without dropout, which would make the ways differ.
_GATE = {"model_type": "bert", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}

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
    "0.5b": Size(_CLIPS, prompts=2, completion=256, released="HumanOmni-0.5B"),
    "7b": Size(
        replace(_CLIPS, image_size=384, patch_size=14), prompts=2, completion=256, released="HumanOmni-7B"
    ),
}


def build_policy(size: Size, device: str = "cpu") -> Policy:
    """A policy of this size with random weights of seed 0, float32."""
    texts = [format_completion(" ".join(_WORDS[n % 9 :]) + ".", "happiness") for n in range(60)]
    # The processor only needs to know the sizes of a prepared clip, so a model of one layer will do.
    thin = replace(
        size.policy, hidden=32, heads=2, mlp=32, layers=1, vision_layers=1, audio_layers=1, gate_width=32
    )
    small, processor = build_tiny_policy(texts, 0, thin)
    if size.released is not None:
        config = released_config(RELEASED[size.released], processor.tokenizer, gate_config=_GATE)
    else:
        config = tiny_config(processor.tokenizer, len(processor.gate_tokenizer), size.policy)
        for section, values in size.changes.items():
            for name, value in values.items():
                setattr(getattr(config, section), name, value)
    torch.manual_seed(0)
    with torch.device(device):
        model = HumanOmniForConditionalGeneration(config)
    model.generation_config = small.generation_config
    return Policy(model.eval(), processor)


def write_clips(folder: Path, size: Size, count: int) -> ShardReader:
    """Writes `count` clips of noise."""
    random = np.random.default_rng(0)
    side, seconds = size.policy.image_size, size.policy.window_seconds
    with ShardWriter(folder, clips_per_shard=32) as writer:
        for number in range(count):
            frames = random.integers(0, 255, (size.policy.num_frames, side, side, 3), dtype=np.uint8)
            audio = random.integers(-9000, 9000, seconds * SAMPLE_RATE).astype(np.int16)
            writer.add(Clip(f"{number:05d}", frames, audio, SAMPLE_RATE))
    return ShardReader(folder)
