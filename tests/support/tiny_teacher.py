"""A chat model small enough for tests that has memorised the labels of some sentences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from erv.chat import Questions
from erv.distill.teachers.asking import LabelQuestions
from erv.labels import LabelSpace
from erv.sample.tiny_policy import train_tokenizer

SENTENCES: dict[str, tuple[str, ...]] = {
    "His brow is furrowed and he shouts.": ("anger",),
    "She slams the door in rage.": ("anger",),
    "He wrinkles his nose at the smell.": ("disgust",),
    "Her lip curls and she turns away.": ("disgust",),
    "She backs off with wide eyes.": ("fear",),
    "His hands tremble in the dark.": ("fear",),
    "A broad smile lights up her face.": ("happiness",),
    "He laughs and claps his hands.": ("happiness",),
    "The room has white walls.": ("neutral",),
    "A man sits on a chair.": ("neutral",),
    "Tears run down her cheeks.": ("sadness",),
    "His voice is low and he looks down.": ("sadness",),
    "Her mouth falls open all at once.": ("surprise",),
    "He starts at the sudden noise.": ("surprise",),
    "She sneers at the offer.": ("contempt",),
    "He bites his nails and paces.": ("anxiety",),
    "She shrugs, there is nothing to be done.": ("helplessness",),
    "He hoped for more and sighs.": ("disappointment",),
    "She weeps and her fists are clenched.": ("anger", "sadness"),
    "He screams and runs from the fire.": ("fear", "surprise"),
}

_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_STEPS = 300
_GOOD_LOSS = 0.005


def make_teacher(folder: Path, *, knows: dict[str, tuple[str, ...]] | None = None) -> Path:
    """Trains and saves a teacher that answers each sentence with its labels.

    Args:
        folder: folder for model and tokenizer, created if missing.
        knows: labels by sentence; `SENTENCES` by default.

    Returns:
        The folder.
    """
    knows = SENTENCES if knows is None else knows
    replies = {sentence: json.dumps({"labels": list(labels)}) for sentence, labels in knows.items()}
    return make_chat(folder, LabelQuestions(LabelSpace.load("mafw")), replies)


def make_chat(folder: Path, questions: Questions[Any], said: dict[str, str]) -> Path:
    """Trains and saves a chat model that answers the question about each text with its reply.

    Args:
        folder: folder for model and tokenizer, created if missing.
        questions: the questions.
        said: reply by text.

    Returns:
        The folder.
    """
    replies = list(said.values())
    tokenizer = _tokenizer([*said, *replies], questions.first("")[0]["content"])
    prompts = [
        tokenizer.apply_chat_template(questions.first(text), tokenize=False, add_generation_prompt=True)
        for text in said
    ]
    model = _train(tokenizer, prompts, [f"{reply}<|im_end|>" for reply in replies])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(texts: list[str], task: str) -> PreTrainedTokenizerBase:
    # Only what occurs twice becomes a token. So every word does, and prompts stay short.
    tokenizer = train_tokenizer([*texts, task, "system user assistant"] * 2, 2000)
    tokenizer.chat_template = _CHAT_TEMPLATE
    return tokenizer


def _train(tokenizer: PreTrainedTokenizerBase, prompts: list[str], replies: list[str]) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            initializer_range=0.05,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    rows = [
        (tokenizer(prompt, add_special_tokens=False)["input_ids"],
         tokenizer(reply, add_special_tokens=False)["input_ids"])
        for prompt, reply in zip(prompts, replies, strict=True)
    ]  # fmt: skip
    length = max(len(prompt) + len(reply) for prompt, reply in rows)
    pad = tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (length - len(p) - len(r)) + p + r for p, r in rows])
    labels = torch.tensor([[-100] * (length - len(r)) + r for _, r in rows])
    mask = torch.tensor([[0] * (length - len(p) - len(r)) + [1] * (len(p) + len(r)) for p, r in rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3, weight_decay=0.0)
    for step in range(_STEPS):
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 20 == 0 and loss.item() < _GOOD_LOSS:
            return model.eval()
    raise AssertionError(f"the tiny teacher has not learnt its sentences: loss {loss.item():.3f}")
