"""Shared prompts when activations are computed twice (`grpo.gradient_checkpointing`).

transformers drops the cache of a checkpointed layer, because the layer would write to it a second time when
the backward pass runs it again. The caches here don't mind: the prompt's layer stores its keys and values
once, with their gradient, and a completion's layer only reads them. Per layer, autograd keeps the inputs of
both passes and the prompt's keys and values once per group; repeating them for the rows of a group is part of
what is computed twice.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer
from transformers.modeling_layers import GradientCheckpointingLayer

from erv.training.grpo.shared_prompts import SharedPrompt


class PromptLayer(DynamicLayer):
    """Stores the keys and values of its first update, [groups, heads, P, D]; a second run changes nothing."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns what it is given: a prompt attends to itself alone."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
        return key_states, value_states


class CompletionLayer(DynamicLayer):
    """Shows each row the keys and values of its group's prompt, and stores nothing."""

    def __init__(self, prompt: PromptLayer, group_of_row: torch.Tensor) -> None:
        """Takes the layer of the prompts, after their pass, and the group of each row, long [rows]."""
        super().__init__()
        assert prompt.keys is not None
        assert prompt.values is not None
        self.lazy_initialization(prompt.keys, prompt.values)
        self.keys, self.values = prompt.keys, prompt.values
        self._group_of_row = group_of_row

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of prompt and completion, [rows, heads, P + T, D]."""
        pairs = ((self.keys, key_states), (self.values, value_states))
        keys, values = (
            torch.cat([known.index_select(0, self._group_of_row), new], dim=-2) for known, new in pairs
        )
        return keys, values


def accept_checkpointed_prompts(inner: Any) -> None:
    """Like `shared_prompts.accept_shared_prompts`, for a model whose blocks may be checkpointed.

    From then on the blocks of its language model keep their cache when they are checkpointed. That is safe
    with the caches of this module, and without gradient, where nothing runs twice.
    """
    for module in inner.language_model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module._can_checkpoint_with_cache = True
    inner.register_forward_pre_hook(_run_prompt, with_kwargs=True)


def _run_prompt(
    inner: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    prompt: SharedPrompt | None = keywords.pop("shared_prompt", None)
    if prompt is None:
        return None
    layers = [PromptLayer() for _ in range(inner.language_model.config.num_hidden_layers)]
    inner(**prompt.inputs, past_key_values=Cache(layers=layers), use_cache=False)
    cache = Cache(layers=[CompletionLayer(layer, prompt.group_of_row) for layer in layers])
    return arguments, keywords | {"past_key_values": cache, "use_cache": False}
