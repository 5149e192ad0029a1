"""A key-value cache with room for the tokens to come.

`transformers`' dynamic cache copies itself entirely for every new token; this one writes in place.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer


class GrowingLayer(DynamicLayer):
    """Keys and values of one layer: views of buffers that have room for more.

    For generation only: it writes in place, which gradients can't pass through.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, room: int) -> None:
        """Copies the keys and values so far.

        Args:
            keys: [B, heads, P, D].
            values: [B, heads, P, D].
            room: how many tokens may follow at most.
        """
        super().__init__()
        self.lazy_initialization(keys, values)
        self._buffers = [torch.nn.functional.pad(known, (0, 0, 0, room)) for known in (keys, values)]
        self._show(keys.shape[-2])

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends keys and values [B, heads, T, D]; returns all so far, [B, heads, P + T, D].

        Raises:
            RuntimeError: there is no room left.
        """
        start, end = self._length, self._length + key_states.shape[-2]
        room = self._buffers[0].shape[-2]
        if end > room:
            raise RuntimeError(f"the cache has room for {room} tokens, but needs {end}")
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[..., start:end, :] = new
        self._show(end)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keeps only these rows, long [kept]."""
        self._buffers = [buffer[indices] for buffer in self._buffers]
        self._show(self._length)

    def _show(self, length: int) -> None:
        self._length = length
        self.keys, self.values = (buffer[..., :length, :] for buffer in self._buffers)


def empty_cache(like: Any, rows: int, room: int) -> Any:
    """A cache for `rows` rows that holds nothing yet, with room for `room` tokens.

    Args:
        like: a dynamic cache of the same model, for the shapes of its layers.
        rows: rows of the batch.
        room: how many tokens may come at most.
    """
    cache = DynamicCache()
    cache.layers = [
        GrowingLayer(_nothing(layer.keys, rows), _nothing(layer.values, rows), room) for layer in like.layers
    ]
    return cache


def _nothing(like: torch.Tensor, rows: int) -> torch.Tensor:
    return like.new_empty(rows, like.shape[1], 0, like.shape[3])
