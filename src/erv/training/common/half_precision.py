"""Frozen weights in half precision while autocast computes in it.

Autocast casts the inputs of a linear layer to half precision. It keeps the cast copy of a weight that trains,
but casts a frozen one again in every call: reading, writing and reading again what could be read once. Under
adapters that is the whole base, for every token of a generation. Held in half precision from the start, the
same layers return the same bits and take half the memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

HEAD = "lm_head"  # the policies' name for it; TRL's fused head reads its weight outside a linear layer


@contextmanager
def frozen_linears_in(dtype: torch.dtype, models: Iterable[Any]) -> Iterator[None]:
    """Within the block, frozen linear layers hold their weights in `dtype`; afterwards they are as before.

    Only weights that autocast would cast anyway are touched: those of plain linear layers that don't train.
    Embeddings, norms, convolutions, the head and layers in four bits stay as they are. Within the block the
    models must be called under autocast in the same `dtype`. If the block fails, nothing is restored.

    Args:
        dtype: what autocast computes in; float32 changes nothing.
        models: modules; a weight that appears twice is handled once.
    """
    exact = [] if dtype == torch.float32 else [_round(value, dtype) for value in _frozen(models)]
    yield
    for value, original in exact:
        device = value.device
        value.data = value.data.float() if original is None else original.to(device)


def _frozen(models: Iterable[Any]) -> list[nn.Parameter]:
    """The float32 weights and biases of frozen linear layers, each once."""
    found: dict[int, nn.Parameter] = {}
    tied: set[int] = set()
    for model in models:
        for name, module in model.named_modules():
            values = [value for value in module.parameters(recurse=False) if value.dtype == torch.float32]
            if type(module) is nn.Linear and name.rpartition(".")[2] != HEAD:
                found |= {id(value): value for value in values if not value.requires_grad}
            else:
                tied |= {id(value) for value in values}
    return [value for key, value in found.items() if key not in tied]


def _round(value: nn.Parameter, dtype: torch.dtype) -> tuple[nn.Parameter, torch.Tensor | None]:
    """Rounds a weight; returns it with a copy of the original on the CPU, or None if nothing was lost."""
    original = value.data
    value.data = original.to(dtype)
    lossless = torch.equal(value.data.to(original.dtype), original)
    return value, None if lossless else original.cpu()
