"""Writes the completions of a generation, token by token, from prompts that ran once per group.

Rows that have ended are dropped from the batch, together with prompts that no row continues. This is plain
PyTorch for any device. The trainer calls only `write_completions`, or `write_plainly`, so another loop can
take their place.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList

from erv.training.grpo.continuation import Continuation
from erv.training.grpo.grouped_attention import as_masks
from erv.training.grpo.growing_cache import empty_cache
from erv.training.grpo.sampling import DrawnToken, Sampler
from erv.training.grpo.shared_prompts import SharedPrompt

_DROP_AT = 1 / 8  # the share of ended rows at which they are dropped: dropping copies the others


@torch.no_grad()
def write_completions(
    model: Any,
    inner: Any,
    prompt: SharedPrompt,
    sampler: Sampler,
    *,
    ends: Collection[int],
    limit: int,
    everyone: Callable[[bool], bool] = lambda done: done,
) -> list[list[int]]:
    """One completion per row.

    Args:
        model: the policy, with its wrappers: a sharded model gathers its weights in its outermost forward.
        inner: the policy's model without its head, prepared by `use_grouped_attention`.
        prompt: whole prompts, padded on the left, with `attention_mask` and `position_ids`.
        sampler: draws the tokens.
        ends: ids that end a completion.
        limit: most tokens of a completion.
        everyone: whether all processes are done, given whether this one is. Processes that share the weights
            of a model must call it equally often.

    Returns:
        Per row, the tokens up to and including the first end.

    Raises:
        NotFiniteError: the policy's logits are not finite.
    """
    outputs = model(**prompt.inputs, use_cache=True, logits_to_keep=1)
    rows = prompt.group_of_row.argsort(stable=True)
    groups = prompt.group_of_row[rows]
    layers = [(layer.keys, layer.values) for layer in outputs.past_key_values.layers]
    continuation = Continuation(layers, prompt.inputs["attention_mask"], groups)
    cache = empty_cache(outputs.past_key_values, len(rows), limit)
    logits = outputs.logits[:, -1][groups]
    positions = prompt.inputs["position_ids"][..., -1:].index_select(-2, groups)
    ending = torch.tensor(sorted(ends), device=rows.device)
    written = rows.new_zeros(len(rows), limit)
    length = rows.new_full((len(rows),), limit)
    live = torch.ones_like(rows, dtype=torch.bool)
    for token in range(limit):
        drawn = sampler(logits, rows, token)
        written[rows, token] = drawn
        ended = live & torch.isin(drawn, ending)
        length[rows[ended]] = token + 1
        live = live & ~ended
        left = int(live.sum())
        if token + 1 == limit or everyone(left == 0):
            break
        if 0 < left <= len(rows) * (1 - _DROP_AT):
            kept = live.nonzero().squeeze(1)
            rows, drawn, live = rows[kept], drawn[kept], live[kept]
            positions = positions.index_select(-2, kept)
            continuation.keep(kept)
            cache.batch_select_indices(kept)
        positions = positions + 1
        logits = model(
            input_ids=drawn.unsqueeze(1),
            attention_mask=as_masks(inner, continuation),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
    return [row[:end] for row, end in zip(written.tolist(), length.tolist(), strict=True)]


@torch.no_grad()
def write_plainly(
    model: Any, inputs: dict[str, torch.Tensor], sampler: Sampler, config: GenerationConfig
) -> list[list[int]]:
    """The same by transformers' `generate`, with each prompt run for each row: the reference in tests.

    Args:
        model: the policy.
        inputs: prompts of all rows, padded on the left, as the policy's `generate` takes them.
        sampler: draws the tokens.
        config: ends and limit; how it samples doesn't matter.

    Returns:
        Per row, its tokens; what follows the first end is padding.
    """
    length = inputs["input_ids"].shape[1]
    greedy = GenerationConfig(
        max_new_tokens=config.max_new_tokens,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        do_sample=False,
    )
    drawn = LogitsProcessorList([DrawnToken(sampler, length)])
    output = model.generate(**inputs, generation_config=greedy, logits_processor=drawn)
    rows: list[list[int]] = output[:, length:].tolist()
    return rows
