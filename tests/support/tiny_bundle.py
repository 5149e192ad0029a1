"""A candidate bundle, as small as can be, with an untrained policy and verifier."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

SERVING = {
    "frames": 2, "size": 32, "geometry": "stretch", "sample_rate": 16000, "max_new_tokens": 8,
    "limits": {
        "min_seconds": 0.5, "max_seconds": 60.0, "min_fps": 5.0, "min_side": 32, "min_brightness": 8.0,
        "min_loudness_db": -60.0,
    },
}  # fmt: skip


def write_models(folder: Path) -> None:
    """An untrained policy and an untrained verifier, as small as they can be."""
    from transformers import BertConfig, BertForSequenceClassification

    from erv.labels import LabelSpace
    from erv.policies import Policy
    from erv.prompts import format_completion
    from erv.sample.tiny_policy import TinySizes, build_tiny_policy, train_wordpiece
    from erv.verifier import EmotionVerifier

    sizes = TinySizes(
        image_size=32, num_frames=2, vision_width=16, vision_layers=1, audio_width=16, audio_layers=1,
        window_seconds=1, hidden=32, layers=2, heads=2, mlp=64, gate_width=16, vocabulary=400,
    )  # fmt: skip
    texts = [format_completion(f"She smiles, take {n}.", "happiness") for n in range(20)]
    Policy(*build_tiny_policy(texts, seed=0, sizes=sizes)).save(folder / "policy")
    tokenizer = train_wordpiece(texts, 200, max_length=64)
    labels = LabelSpace.load("mafw").names
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, num_labels=len(labels),
    )  # fmt: skip
    verifier = EmotionVerifier(
        BertForSequenceClassification(config), tokenizer, labels=labels, thresholds=[0.1] * len(labels)
    )
    (folder / "verifier").mkdir()
    verifier.save_pretrained(folder / "verifier")


def write_bundle(folder: Path) -> Path:
    """What serving reads of a bundle."""
    write_models(folder)
    (folder / "serving.json").write_text(json.dumps(SERVING))
    return folder


def write_clip(path: Path, *, sound: bool = True, loudness: float = 1.0, seed: int = 0) -> Path:
    """A second of noise as a video, with or without sound."""
    from erv.sample.clips import encode

    random = np.random.default_rng(seed)
    frames = [random.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(12)]
    audio = (loudness * random.integers(-9000, 9000, 16000)).astype(np.int16)
    path.write_bytes(encode(frames, audio if sound else None))
    return path
