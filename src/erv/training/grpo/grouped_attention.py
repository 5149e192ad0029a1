"""Attention of completions to the prompt of their group, without repeating its keys and values.

`use_grouped_attention` lets a language model take, in place of an attention mask, a `Layout` (a packed row,
when scoring) or a `Continuation` (one token of each row, when generating). A plain mask means the stock
attention.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from erv.training.grpo.continuation import Continuation
from erv.training.grpo.packing import Layout
from erv.training.grpo.partial_attention import attend, attend_backward, join

NAME = "erv_grouped"


def use_grouped_attention(inner: Any) -> bool:
    """Lets the language model of `inner`, a policy's model without its head, take groups; False if it can't.

    It can't if it isn't one of transformers' models with the stock attention over all earlier tokens.
    """
    config = inner.language_model.config
    if config._attn_implementation not in ("sdpa", NAME) or "sliding_attention" in config.layer_types:
        return False
    AttentionInterface.register(NAME, grouped_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    config._attn_implementation = NAME
    return True


def as_masks(inner: Any, groups: Layout | Continuation) -> dict[str, Any]:
    """The argument `attention_mask` for a call with these groups."""
    return dict.fromkeys(inner.language_model.config.layer_types, groups)


def grouped_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    *,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """What a layer calls, in the form of transformers' attention functions.

    Args:
        module: the layer's attention.
        query: [rows, heads, tokens, D].
        key: [rows, key heads, tokens, D].
        value: [rows, key heads, tokens, D].
        attention_mask: a `Layout`, a `Continuation`, or what the stock attention takes.
        scaling: factor of the scores.
        dropout: must be 0 with groups.
        **kwargs: for the stock attention.

    Returns:
        [rows, tokens, heads, D], and no weights.

    Raises:
        ValueError: dropout with groups.
    """
    if not isinstance(attention_mask, Layout | Continuation):
        stock: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
        )
        return stock
    if dropout:
        raise ValueError("attention by groups has no dropout; set attention_dropout to 0")
    query, key = query.to(value.dtype), key.to(value.dtype)  # rotation may have left them in float32
    if isinstance(attention_mask, Continuation):
        return attention_mask.attend(module.layer_idx, query, key, value, scaling), None
    flat = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    output: torch.Tensor = PackedAttention.apply(*flat, attention_mask, scaling)  # type: ignore[no-untyped-call]
    return output.unsqueeze(0), None


class PackedAttention(torch.autograd.Function):
    """Attention in a packed row: prompts to themselves, completions to their prompt and to themselves."""

    @staticmethod
    def forward(
        context: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        layout: Layout,
        scale: float,
    ) -> torch.Tensor:
        """[N, heads, D] from query [N, heads, D], key and value [N, key heads, D]."""
        heads = key.shape[1]
        output = torch.empty_like(query)
        log_sum = torch.empty(query.shape[:2], dtype=torch.float32, device=query.device)
        with torch.autocast(query.device.type, enabled=False):
            for prompt, rows in layout.groups:
                repeat = query.shape[1] // heads
                own = attend(
                    _rows(query[prompt]),
                    _rows(key[prompt], repeat),
                    _rows(value[prompt], repeat),
                    scale,
                    causal=True,
                )
                output[prompt], log_sum[prompt] = own[0][0].transpose(0, 1), own[1][0].T
                seen = attend(_folded(query[rows], heads), _rows(key[prompt]), _rows(value[prompt]), scale)
                output[rows], log_sum[rows] = _unfolded(seen[0], repeat), _unfolded(seen[1], repeat)
            for tokens, taken in layout.buckets:
                own = attend(*_bucket(query, key, value, tokens), scale, causal=True)
                both = join(output[tokens].transpose(1, 2), log_sum[tokens].transpose(1, 2), *own)
                at = tokens[taken]
                output[at], log_sum[at] = (part.transpose(1, 2)[taken] for part in both)
        context.save_for_backward(query, key, value, output, log_sum)
        context.layout, context.scale = layout, scale
        return output

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> Any:
        """Gradients of query, key and value."""
        query, key, value, output, log_sum = context.saved_tensors
        scale, heads, repeat = context.scale, key.shape[1], query.shape[1] // key.shape[1]
        to_query, to_key, to_value = (torch.empty_like(tensor) for tensor in (query, key, value))
        for tokens, taken in context.layout.buckets:
            ours = gradient[tokens].masked_fill(~taken[..., None, None], 0.0).transpose(1, 2)
            found = attend_backward(
                ours,
                *_bucket(query, key, value, tokens),
                output[tokens].transpose(1, 2),
                log_sum[tokens].transpose(1, 2),
                scale,
                causal=True,
            )
            at = tokens[taken]
            to_query[at] = found[0].transpose(1, 2)[taken]
            for target, part in zip((to_key, to_value), found[1:], strict=True):
                target[at] = part.unflatten(1, (heads, repeat)).sum(2).transpose(1, 2)[taken]
        for prompt, rows in context.layout.groups:
            own = attend_backward(
                _rows(gradient[prompt]),
                _rows(query[prompt]),
                _rows(key[prompt], repeat),
                _rows(value[prompt], repeat),
                _rows(output[prompt]),
                log_sum[prompt].T.unsqueeze(0),
                scale,
                causal=True,
            )
            seen = attend_backward(
                _folded(gradient[rows], heads),
                _folded(query[rows], heads),
                _rows(key[prompt]),
                _rows(value[prompt]),
                _folded(output[rows], heads),
                _folded(log_sum[rows].unsqueeze(-1), heads).squeeze(-1),
                scale,
            )
            to_query[prompt] = own[0][0].transpose(0, 1)
            to_query[rows] += _unfolded(seen[0], repeat)
            for target, mine, theirs in zip((to_key, to_value), own[1:], seen[1:], strict=True):
                summed = mine[0].unflatten(0, (heads, repeat)).sum(1) + theirs[0]
                target[prompt] = summed.transpose(0, 1)
        return to_query, to_key, to_value, None, None


def _rows(flat: torch.Tensor, repeat: int = 1) -> torch.Tensor:
    """[tokens, heads, D] as a batch of one, [1, heads * repeat, tokens, D]."""
    heads = flat.transpose(0, 1).unsqueeze(0)
    return heads if repeat == 1 else heads.repeat_interleave(repeat, dim=1)


def _folded(flat: torch.Tensor, heads: int) -> torch.Tensor:
    """Queries [tokens, all heads, D] by the key head that they share, [1, heads, tokens * repeat, D]."""
    by_head: torch.Tensor = flat.unflatten(1, (heads, -1)).permute(1, 2, 0, 3)
    return by_head.reshape(1, heads, -1, flat.shape[-1])


def _unfolded(found: torch.Tensor, repeat: int) -> torch.Tensor:
    """Back from [1, heads, tokens * repeat, ...] to [tokens, all heads, ...]."""
    parts: torch.Tensor = found[0].unflatten(1, (repeat, -1))
    return parts.movedim(2, 0).flatten(1, 2)


def _bucket(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, tokens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Query, key and value of a bucket, [rows, all heads, longest, D]."""
    repeat = query.shape[1] // key.shape[1]
    return (
        query[tokens].transpose(1, 2),
        key[tokens].transpose(1, 2).repeat_interleave(repeat, dim=1),
        value[tokens].transpose(1, 2).repeat_interleave(repeat, dim=1),
    )
