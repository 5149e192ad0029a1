"""Generates a policy's completions for clips, greedy or sampled, in batches padded on the left.

The towers run once per clip.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from erv.policies.common.policy import Policy
from erv.shards import Clip, hears


def generate_completions(
    policy: Policy,
    clips: Iterable[Clip],
    *,
    batch_size: int,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    video: bool = True,
    progress: Callable[[int], None] = lambda done: None,
    asked: Mapping[str, str] = MappingProxyType({}),
    drawn: Callable[[Sequence[str], int], LogitsProcessor] | None = None,
) -> dict[str, str]:
    """Generates one completion per clip.

    Args:
        policy: the policy that answers.
        clips: decoded clips, read one batch at a time.
        batch_size: clips per batch.
        max_new_tokens: a completion that has not ended by then is cut.
        temperature: 0 for greedy decoding, above 0 for sampling.
        seed: seed for sampling; the same clips in the same batches give the same completions.
        video: whether the prompt has the frames; False asks about the sound alone.
        progress: called after each batch with the number of clips done.
        asked: the user turn by clip id; the policy's prompt for clips that are not in it.
        drawn: given a batch's clip ids and the length of its prompts, what chooses each token; `temperature`
            is 0 then.

    Returns:
        Completions by clip id, with their tags but without the end token.
    """
    completions: dict[str, str] = {}
    remaining = iter(clips)
    with torch.random.fork_rng(devices=_gpus(policy)):
        torch.manual_seed(seed)
        while batch := list(itertools.islice(remaining, batch_size)):
            texts = _batch(policy, batch, asked, max_new_tokens, temperature, video, drawn)
            completions.update(zip((clip.clip_id for clip in batch), texts, strict=True))
            progress(len(completions))
    return completions


def _gpus(policy: Policy) -> list[int]:
    index = policy.device.index if policy.device.type == "cuda" else None
    return [] if index is None else [index]


def encode(policy: Policy, clips: Sequence[Clip]) -> dict[str, torch.Tensor]:
    """What the frozen towers make of clips, [clips, ...], by the name of the model's input."""
    prepared = [policy.processor.prepare_clip(clip.frames, clip.audio, clip.sample_rate) for clip in clips]
    features: dict[str, torch.Tensor] = policy.model.encode_clips(
        **{name: torch.stack([item[name] for item in prepared]) for name in prepared[0]}
    )
    return features


def generate(
    policy: Policy,
    features: Mapping[str, torch.Tensor],
    prompts: Sequence[Sequence[int]],
    question: Mapping[str, torch.Tensor],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    drawn: LogitsProcessor | None = None,
    further: Mapping[str, Any] = MappingProxyType({}),
) -> list[str]:
    """The completions of one batch.

    Args:
        policy: the policy that answers.
        features: from `encode`, on the policy's device.
        prompts: token ids per clip, with expanded placeholders; padded here on the left.
        question: from the processor's `question_inputs`.
        max_new_tokens: a completion that has not ended by then is cut.
        temperature: 0 for greedy decoding, above 0 for sampling with torch's generator.
        drawn: chooses each token instead, by leaving only one; with temperature 0.
        further: other arguments of transformers' `generate`, such as a streamer.

    Returns:
        The text of each completion, with its tags but without the end token.
    """
    model, tokenizer = policy.model, policy.processor.tokenizer
    length = max(map(len, prompts))
    ids = torch.tensor([[tokenizer.pad_token_id] * (length - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in prompts])
    inputs = {"input_ids": ids, "attention_mask": mask, **question}
    sampling = {"temperature": temperature, "top_k": 0} if temperature > 0 else {}
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=temperature > 0,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        suppress_tokens=model.placeholder_ids,
        **sampling,
    )
    with torch.inference_mode():
        generated = model.generate(
            **{name: value.to(policy.device) for name, value in inputs.items()},
            **features,
            generation_config=settings,
            logits_processor=LogitsProcessorList([] if drawn is None else [drawn]),
            **further,
        )
    return [text_of(policy, row) for row in generated[:, length:]]


def text_of(policy: Policy, tokens: Sequence[int] | torch.Tensor) -> str:
    """The completion with these token ids, with its tags but without the end token."""
    return f"{policy.begins}{policy.processor.tokenizer.decode(tokens, skip_special_tokens=True)}".strip()


def _batch(
    policy: Policy,
    clips: list[Clip],
    asked: Mapping[str, str],
    max_new_tokens: int,
    temperature: float,
    video: bool,
    drawn: Callable[[Sequence[str], int], LogitsProcessor] | None,
) -> list[str]:
    processor = policy.processor
    prompts = [
        processor.prompt_ids(asked.get(clip.clip_id), video=video, audio=hears(clip)) for clip in clips
    ]
    return generate(
        policy,
        encode(policy, clips),
        prompts,
        processor.question_inputs(),
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        drawn=None if drawn is None else drawn([clip.clip_id for clip in clips], max(map(len, prompts))),
    )
