"""A bundle whose tiny policy knows by heart what to say about two clips, and whose verifier reads it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.support.tiny_bundle import SERVING

# Per emotion what is said of its clip, and the emotions of each sentence.
SAID = {
    "happiness": (
        ("The woman smiles broadly.", "happiness"),
        ("Her cheeks rise and her eyes narrow.", "happiness"),
        ("She sits in a kitchen.", None),
        ("Her voice is bright and quick.", "happiness"),
    ),
    "anger": (
        ("The man frowns and his jaw is tight.", "anger"),
        ("He shouts at the door.", "anger"),
        ("For a moment he smiles.", "happiness"),
        ("His fists are clenched.", "anger"),
    ),
}
COMPLETIONS = {
    emotion: f"<think>{' '.join(text for text, _ in said)}</think>\n<answer>{emotion}</answer>"
    for emotion, said in SAID.items()
}
_STEPS = 300
_LEARNED = 0.02  # loss


def write_talking_bundle(folder: Path, clips: dict[str, Path], *, frames: int = 2, size: int = 32) -> Path:
    """Writes policy, verifier and `serving.json`.

    Args:
        folder: is made.
        clips: a clip per emotion of `SAID`.
        frames: that the policy sees.
        size: of a frame, in pixels; a multiple of 32.
    """
    folder.mkdir(parents=True)
    serving = {**SERVING, "frames": frames, "size": size, "max_new_tokens": 96, "datasets": {"mafw": None}}
    (folder / "serving.json").write_text(json.dumps(serving))
    _write_policy(folder / "policy", clips, frames, size)
    _write_verifier(folder / "verifier")
    return folder


def _write_policy(folder: Path, clips: dict[str, Path], frames: int, size: int) -> None:
    import torch

    from erv.media.decode import DecodeRule, decode
    from erv.policies import Policy
    from erv.policies.common.generate import encode
    from erv.sample.tiny_policy import TinySizes, build_tiny_policy
    from erv.shards import Clip

    sizes = TinySizes(
        image_size=size, num_frames=frames, vision_width=16, vision_layers=1, audio_width=16, audio_layers=1,
        window_seconds=1, hidden=64, layers=2, heads=2, mlp=128, gate_width=16, vocabulary=500,
    )  # fmt: skip
    names = [*SAID, "sadness", "surprise", "disgust", "disappointment"]
    texts = [*COMPLETIONS.values(), *(f"<answer>{name}</answer>" for name in names)] * 4
    policy = Policy(*build_tiny_policy(texts, seed=0, sizes=sizes))
    rule = DecodeRule(frames, size, "stretch", 16000)
    seen = {emotion: decode(path, rule) for emotion, path in clips.items()}
    shown = [Clip(emotion, item.frames, item.audio, 16000) for emotion, item in seen.items()]
    features = encode(policy, shown)
    tokenizer = policy.processor.tokenizer
    prompt = policy.processor.prompt_ids()
    rows = [
        prompt + tokenizer(COMPLETIONS[emotion])["input_ids"] + [tokenizer.eos_token_id] for emotion in clips
    ]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [tokenizer.pad_token_id] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    places = torch.arange(longest)
    labels = torch.where((mask == 1) & (places >= len(prompt)), ids, -100)
    policy.model.freeze_towers()
    trained = [one for one in policy.model.parameters() if one.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=5e-3)
    for _ in range(_STEPS):
        loss = policy.model(
            input_ids=ids,
            attention_mask=mask,
            labels=labels,
            **policy.processor.question_inputs(),
            **features,
        ).loss
        if loss.item() < _LEARNED:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    policy.save(folder)


def _write_verifier(folder: Path) -> None:
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from erv.labels import LabelSpace
    from erv.sample.tiny_policy import train_wordpiece
    from erv.verifier import EmotionVerifier

    names = LabelSpace.load("mafw").names
    said = [item for items in SAID.values() for item in items]
    texts = [text for text, _ in said]
    tokenizer = train_wordpiece(texts, 200, max_length=64)
    torch.manual_seed(0)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=64, num_labels=len(names), hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0, problem_type="multi_label_classification",
        )
    )  # fmt: skip
    wanted = torch.from_numpy(
        np.array([[float(name == emotion) for name in names] for _, emotion in said], np.float32)
    )
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(150):
        loss = model(**inputs, labels=wanted).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    verifier = EmotionVerifier(model, tokenizer, labels=names, thresholds=[0.3] * len(names))
    folder.mkdir()
    verifier.save_pretrained(folder)


def write_face_clips(folder: Path) -> dict[str, Path]:
    """A clip of a drawn face for each emotion of `SAID`, as in the sample corpus."""
    from erv.sample.clips import draw_cues, render_clip, stream

    found = {}
    for emotion in SAID:
        cues = draw_cues(emotion, emotion, stream(3, "talking", emotion))
        found[emotion] = folder / f"{emotion}.mp4"
        found[emotion].write_bytes(render_clip(cues, stream(3, "talking", emotion)))
    return found
