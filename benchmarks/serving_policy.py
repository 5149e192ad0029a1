"""A bundle whose policy costs as much time per token as a real one does beside decoding, for `serving.py`.

Its weights are random, so what it writes means nothing, and it always writes as much as it may. Tags never
come, so that neither verifier nor scores take part.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

SIZES = ("usual", "tiny")
_WORDS = ("she", "he", "smiles", "frowns", "and", "looks", "at", "the", "door", "voice", "rises", "falls")


def write_bundle(folder: Path, size: str, tokens: int) -> int:
    """Writes the bundle; returns the number of weights of its language model.

    Args:
        folder: is made.
        size: one of `SIZES`.
        tokens: of each completion.
    """
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from erv.labels import LabelSpace
    from erv.policies import Policy
    from erv.sample.tiny_policy import TinySizes, build_tiny_policy, train_wordpiece
    from erv.verifier import EmotionVerifier

    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(_WORDS, 12)) for _ in range(50)]
    width = {"hidden": 512, "layers": 8, "heads": 8, "mlp": 2048} if size == "usual" else {}
    sizes = TinySizes(image_size=32, num_frames=2, window_seconds=1, vocabulary=500, **width)
    model, processor = build_tiny_policy(texts, seed=0, sizes=sizes)
    tokenizer = processor.tokenizer
    # Letters alone, so that each token is text. Some of them have a positive logit, so no other is chosen.
    silent = [
        token
        for token in range(model.get_output_embeddings().weight.shape[0])
        if token in tokenizer.added_tokens_decoder or not tokenizer.decode([token]).strip().isalpha()
    ]
    with torch.no_grad():
        model.get_output_embeddings().weight[silent] = 0.0
    Policy(model, processor).save(folder / "policy")
    names = LabelSpace.load("mafw").names
    words = train_wordpiece(texts, 200, max_length=64)
    reader = BertForSequenceClassification(
        BertConfig(
            vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=16, num_labels=len(names),
        )
    )  # fmt: skip
    (folder / "verifier").mkdir()
    verifier = EmotionVerifier(reader, words, labels=names, thresholds=[0.5] * len(names))
    verifier.save_pretrained(folder / "verifier")
    serving = {
        "frames": 2, "size": 32, "geometry": "stretch", "sample_rate": 16000, "max_new_tokens": tokens,
        "limits": {
            "min_seconds": 0.5, "max_seconds": 60.0, "min_fps": 5.0, "min_side": 32, "min_brightness": 8.0,
            "min_loudness_db": -60.0,
        },
        "datasets": {"mafw": None},
    }  # fmt: skip
    (folder / "serving.json").write_text(json.dumps(serving), encoding="utf-8")
    towers = ("vision", "audio", "gate")
    return sum(
        weight.numel()
        for name, weight in model.named_parameters()
        if not any(tower in name for tower in towers)
    )


def clip() -> bytes:
    """A clip of a second, of noise."""
    from erv.sample.clips import encode

    random = np.random.default_rng(0)
    frames = [random.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(12)]
    return encode(frames, random.integers(-9000, 9000, 16000).astype(np.int16))
