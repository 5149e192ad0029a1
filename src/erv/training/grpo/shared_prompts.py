"""Runs each prompt once for all its completions.

The completions of a group share their prompt, and most of its tokens stand for frames and sound. The prompt's
keys and values are computed once (with their gradient when scoring) and repeated, and the completions attend
to them. The results are the same as with one run of the prompt per completion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class SharedPrompt:
    """One prompt per group of rows.

    Attributes:
        inputs: inputs of the inner model, [groups, ...].
        group_of_row: long [rows], the group whose prompt each row continues.
    """

    inputs: dict[str, torch.Tensor]
    group_of_row: torch.Tensor


def distinct_rows(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Which rows are the first of their kind, long [groups], and the group of each row, long [rows].

    Args:
        rows: [rows, n].
    """
    groups, group_of_row = torch.unique(rows, dim=0, return_inverse=True)
    order = torch.arange(rows.size(0), device=rows.device)
    first = order.new_full((groups.size(0),), rows.size(0)).scatter_reduce(0, group_of_row, order, "amin")
    return first, group_of_row


def repeat_cache(cache: Any, group_of_row: torch.Tensor) -> Any:
    """Repeats the keys and values of a `transformers` cache from groups to rows; gradients flow through."""
    for layer in cache.layers:
        layer.keys = layer.keys.index_select(0, group_of_row)
        layer.values = layer.values.index_select(0, group_of_row)
    return cache


def accept_shared_prompts(inner: nn.Module) -> None:
    """Lets a model without its head take `shared_prompt`, a `SharedPrompt`, instead of `past_key_values`.

    A hook runs the prompt inside the call for the completions, not before it. Wrappers around the model (DDP,
    FSDP, DeepSpeed) then see one forward pass per backward pass, as they require.
    """
    inner.register_forward_pre_hook(_run_prompt, with_kwargs=True)


def _run_prompt(
    inner: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    prompt = keywords.pop("shared_prompt", None)
    if prompt is None:
        return None
    cache = inner(**prompt.inputs, use_cache=True).past_key_values
    return arguments, keywords | {"past_key_values": repeat_cache(cache, prompt.group_of_row)}
