"""A Qwen2.5-Omni small enough for a test: transformers' own classes, random weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase, WhisperFeatureExtractor

from erv.policies import Policy
from erv.policies.qwen_omni import QwenOmniConfig, QwenOmniForConditionalGeneration
from erv.policies.qwen_omni.processing import (
    AUDIO_END,
    AUDIO_START,
    AUDIO_TOKEN,
    IMAGE_TOKEN,
    VIDEO_END,
    VIDEO_START,
    VIDEO_TOKEN,
)
from erv.policies.qwen_omni.released import with_processor
from erv.sample.tiny_policy import train_tokenizer

FRAMES, SIZE, SECONDS, RATE = 4, 56, 1, 16000


def tiny_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerBase:
    """A tokenizer with the markers of Qwen2.5-Omni."""
    tokenizer = train_tokenizer(texts, 400)
    markers = (VIDEO_TOKEN, AUDIO_TOKEN, IMAGE_TOKEN, VIDEO_START, VIDEO_END, AUDIO_START, AUDIO_END)
    tokenizer.add_tokens([AddedToken(marker, special=True) for marker in markers])
    return tokenizer


def tiny_thinker_config(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The thinker's configuration as transformers takes it."""
    number = tokenizer.convert_tokens_to_ids
    return {
        "text_config": {
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 1024,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
            "tie_word_embeddings": False,
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        "vision_config": {
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_heads": 2,
            "window_size": 28,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [1],
        },
        "audio_config": {
            "num_mel_bins": 16,
            "d_model": 16,
            "encoder_layers": 1,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "max_source_positions": 100,
            "n_window": 20,
            "output_dim": 32,
        },
        "audio_token_index": number(AUDIO_TOKEN),
        "image_token_index": number(IMAGE_TOKEN),
        "video_token_index": number(VIDEO_TOKEN),
        "audio_start_token_id": number(AUDIO_START),
        "audio_end_token_id": number(AUDIO_END),
        "vision_start_token_id": number(VIDEO_START),
        "vision_end_token_id": number(VIDEO_END),
    }


def tiny_qwen_omni(texts: Sequence[str], seed: int, **changes: Any) -> Policy:
    """A policy of a few thousand weights that takes clips of `FRAMES` frames of `SIZE` pixels."""
    tokenizer = tiny_tokenizer(texts)
    extractor = WhisperFeatureExtractor(feature_size=16, sampling_rate=RATE, chunk_length=SECONDS)
    config = QwenOmniConfig(
        **tiny_thinker_config(tokenizer)
        | {"num_frames": FRAMES, "image_size": SIZE, "mel_steps": extractor.nb_max_frames}
        | changes
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = QwenOmniForConditionalGeneration(config)
        for (
            name,
            weight,
        ) in model.named_parameters():  # 0.02 is too small to show dependencies in so narrow a model
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=0.2 if "lm_head" not in name else 0.5)
    return Policy(*with_processor(model.eval(), tokenizer, extractor))
