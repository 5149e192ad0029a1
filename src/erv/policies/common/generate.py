"""Generates a policy's completions for clips, greedy or sampled, in batches padded on the left.

The towers run once per clip.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import torch
from transformers import GenerationConfig

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

    Returns:
        Completions by clip id, with their tags but without the end token.
    """
    completions: dict[str, str] = {}
    remaining = iter(clips)
    with torch.random.fork_rng(devices=_gpus(policy)):
        torch.manual_seed(seed)
        while batch := list(itertools.islice(remaining, batch_size)):
            texts = _generate(policy, batch, max_new_tokens, temperature, video)
            completions.update(zip((clip.clip_id for clip in batch), texts, strict=True))
            progress(len(completions))
    return completions


def _gpus(policy: Policy) -> list[int]:
    index = policy.device.index if policy.device.type == "cuda" else None
    return [] if index is None else [index]


def _generate(
    policy: Policy, batch: list[Clip], max_new_tokens: int, temperature: float, video: bool
) -> list[str]:
    """Completions of one batch."""
    model, processor = policy.model, policy.processor
    tokenizer = processor.tokenizer
    prepared = [processor.prepare_clip(clip.frames, clip.audio, clip.sample_rate) for clip in batch]
    features = model.encode_clips(
        **{name: torch.stack([item[name] for item in prepared]) for name in prepared[0]}
    )
    prompts = [processor.prompt_ids(video=video, audio=hears(clip)) for clip in batch]
    length = max(map(len, prompts))
    ids = torch.tensor([[tokenizer.pad_token_id] * (length - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in prompts])
    inputs = {"input_ids": ids, "attention_mask": mask, **processor.question_inputs()}
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
        )
    texts = tokenizer.batch_decode(generated[:, length:], skip_special_tokens=True)
    return [f"{policy.begins}{text}".strip() for text in texts]
