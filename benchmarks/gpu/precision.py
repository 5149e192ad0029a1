"""A policy and a verifier in float32, bfloat16 and float16, against float32 on the CPU.

The same random weights, one clip of noise and the same completions on both sides, towers included. Half
precision is autocast, as in training. The limits are of a log-probability in nats, of a logit as a share of
the largest, and of the pairs of completions that the explanation reward puts in another order.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import combinations, pairwise
from typing import Any

import torch

from benchmarks.gpu.bench import far
from benchmarks.gpu.figures import Context
from benchmarks.gpu.policies import clips_of, policy_of
from erv.labels import LabelSpace
from erv.policies import Policy
from erv.policies.common.policy import token_positions
from erv.prompts import format_completion
from erv.rewards.explanation import explanation_reward
from erv.sample.tiny_policy import train_wordpiece
from erv.shards import Clip
from erv.training.common.clip_features import policy_encoder
from erv.verifier.model import EmotionVerifier

ROWS, TOKENS = 4, 32
# Of a logit as a share of the largest, of a log-probability, and of the pairs in another order.
LIMITS = {
    torch.float32: (1e-3, 1e-2, 0.0),
    torch.bfloat16: (0.1, 0.3, 0.05),
    torch.float16: (0.03, 0.1, 0.02),
}
WORDS = [
    *("the", "person", "smiles", "frowns", "looks", "away", "speaks", "softly"),
    *("loudly", "angrily", "with", "a", "calm", "bright", "shaking", "voice"),
]


def precision(context: Context) -> None:
    """Each type on this device against float32 on the CPU; on a CPU, the two half types."""
    types = list(LIMITS) if context.on_gpu else [torch.bfloat16, torch.float16]
    if context.on_gpu:  # the settings' few threads are for runs that must repeat to the bit
        torch.set_num_threads(os.cpu_count() or 1)
    policy = policy_of(context, "cpu")
    reader = clips_of(context, 1)
    clip = reader.get(reader.clip_ids[0])
    ids = _rows(policy)
    exact = _scores(policy, clip, ids, torch.float32)
    verifier = _verifier()
    texts, truths = _completions()
    rewards = _rewards(verifier, texts, truths)
    context.figures.hold("the rewards differ between completions", len(set(rewards)) > 3)
    policy.model.to(context.device)
    said = []
    for dtype in types:
        name = str(dtype).removeprefix("torch.")
        logit, log_prob, order = LIMITS[dtype]
        found = _scores(policy, clip, ids.to(context.device), dtype)
        context.figures.check(f"{name}: logits", far(exact[0], found[0]), logit)
        gap = float((exact[1] - found[1]).abs().max())
        context.figures.check(f"{name}: log-probabilities", gap, log_prob)
        read = _rewards(_verifier(context.device, dtype, verifier.thresholds), texts, truths)
        context.figures.check(f"{name}: rewards in another order", _turned(rewards, read), order)
        said.append(f"{name} {gap:.1e}")
    context.figures.say(f"largest difference of a log-probability: {', '.join(said)}")


def _rows(policy: Policy) -> torch.Tensor:
    """The prompt with random completions, long [ROWS, P + TOKENS]."""
    prompt = torch.tensor(policy.processor.prompt_ids()).expand(ROWS, -1)
    never = policy.model.placeholder_ids
    words = torch.tensor([word for word in range(len(policy.processor.tokenizer)) if word not in never])
    places = torch.randint(len(words), (ROWS, TOKENS), generator=torch.Generator().manual_seed(0))
    return torch.cat([prompt, words[places]], 1)


@torch.no_grad()
def _scores(
    policy: Policy, clip: Clip, ids: torch.Tensor, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """On the CPU, logits [ROWS, TOKENS, vocabulary] and log-probabilities [ROWS, TOKENS]."""
    device = ids.device
    features = {name: value.unsqueeze(0) for name, value in policy_encoder(policy, dtype)(clip).items()}
    question = {name: value.to(device) for name, value in policy.processor.question_inputs().items()}
    mask = torch.ones_like(ids)
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        logits = policy.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=token_positions(policy.model, ids, mask),
            clip_index=torch.zeros(ROWS, dtype=torch.long, device=device),
            logits_to_keep=TOKENS + 1,
            **features,
            **question,
        ).logits[:, :-1]
    logits = logits.float()
    scored = logits.log_softmax(-1).gather(-1, ids[:, -TOKENS:, None]).squeeze(-1)
    return logits.cpu(), scored.cpu()


def _completions() -> tuple[list[str], list[str]]:
    """Twenty-four explanations of six sentences each, with their truths."""
    draw = torch.Generator().manual_seed(0)
    names = LabelSpace.load("mafw").names
    texts, truths = [], []
    for number in range(24):
        picked = torch.randint(len(WORDS), (6, 6), generator=draw).tolist()
        sentences = [" ".join(WORDS[place] for place in row).capitalize() + "." for row in picked]
        truths.append(names[number % len(names)])
        texts.append(format_completion(" ".join(sentences), truths[-1]))
    return texts, truths


def _verifier(
    device: str = "cpu", dtype: torch.dtype = torch.float32, thresholds: tuple[float, ...] | None = None
) -> EmotionVerifier:
    """A verifier of random weights; its thresholds are as far as can be from any probability on the CPU."""
    from transformers import BertConfig, BertForSequenceClassification

    names = LabelSpace.load("mafw").names
    tokenizer = train_wordpiece([" ".join(WORDS)], 256, max_length=64)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=64,
        num_labels=len(names),
        initializer_range=0.2,  # probabilities then differ between sentences
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertForSequenceClassification(config)
    model = model.to(device=device, dtype=dtype)
    chosen = thresholds or (0.5,) * len(names)
    verifier = EmotionVerifier(model, tokenizer, labels=names, thresholds=chosen)
    if thresholds is None:
        sentences = [line for text in _completions()[0] for line in text.split(". ")]
        verifier.thresholds = tuple(_between(column) for column in verifier.predict(sentences).T.tolist())
    return verifier


def _between(probabilities: list[float]) -> float:
    """The middle of the widest gap among the middle half."""
    ordered = sorted(probabilities)
    middle = ordered[len(ordered) // 4 : -len(ordered) // 4]
    low, high = max(pairwise(middle), key=lambda pair: pair[1] - pair[0])
    return (low + high) / 2


def _rewards(verifier: EmotionVerifier, texts: list[str], truths: list[str]) -> list[float]:
    reward: Callable[..., list[Any]] = explanation_reward(verifier, semantics="official")
    return [float(value) for value in reward(texts, truths)]


def _turned(one: list[float], other: list[float]) -> float:
    """The share of pairs that `one` orders and `other` orders the other way round."""
    pairs = [(a, b) for a, b in combinations(range(len(one)), 2) if one[a] != one[b]]
    return sum((one[a] - one[b]) * (other[a] - other[b]) < 0 for a, b in pairs) / max(1, len(pairs))
