"""Attention while generating: a row's newest token sees the prompt of its group and the row's own tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from erv.training.grpo.partial_attention import attend, join


class Continuation:
    """Prompts, once per group, and the rows that continue them; rows can be dropped.

    The queries of a group's rows are read against its prompt together, as one matrix.
    """

    def __init__(
        self,
        layers: Sequence[tuple[torch.Tensor, torch.Tensor]],
        prompt_mask: torch.Tensor,
        group_of_row: torch.Tensor,
    ) -> None:
        """Starts with all rows.

        Args:
            layers: per layer, keys and values of the prompts, [groups, key heads, P, D] each.
            prompt_mask: [groups, P]; 0 marks padding.
            group_of_row: long [rows], ascending.
        """
        self._layers = list(layers)
        self._mask: torch.Tensor | None = None
        if not bool(prompt_mask.all()):
            self._mask = torch.zeros_like(prompt_mask, dtype=layers[0][0].dtype)
            self._mask = self._mask.masked_fill(prompt_mask == 0, -torch.inf)[:, None, None, :]
        self._arrange(group_of_row)

    def _arrange(self, group_of_row: torch.Tensor) -> None:
        """Gives each row a slot: as many per group as the largest group has rows."""
        self._group_of_row = group_of_row
        counts = torch.bincount(group_of_row, minlength=self._layers[0][0].shape[0])
        size = int(counts.max())
        first = counts.cumsum(0) - counts
        place = torch.arange(len(group_of_row), device=group_of_row.device) - first[group_of_row]
        self._slot_of_row = group_of_row * size + place
        self._row_of_slot = self._slot_of_row.new_zeros(len(counts) * size)  # free slots repeat row 0
        self._row_of_slot[self._slot_of_row] = torch.arange(len(group_of_row), device=group_of_row.device)
        self._full = len(group_of_row) == len(counts) * size

    def keep(self, rows: torch.Tensor) -> None:
        """Drops all other rows, and the prompts that no row continues any more.

        Args:
            rows: long [kept], ascending.
        """
        groups, group_of_row = torch.unique(self._group_of_row[rows], return_inverse=True)
        if len(groups) < self._layers[0][0].shape[0]:
            self._layers = [(keys[groups], values[groups]) for keys, values in self._layers]
            self._mask = None if self._mask is None else self._mask[groups]
        self._arrange(group_of_row)

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Attention of one token per row.

        Args:
            layer: number of the layer.
            query: [rows, heads, 1, D].
            key: the rows' own, [rows, key heads, T, D].
            value: the rows' own, [rows, key heads, T, D].
            scale: factor of the scores.

        Returns:
            [rows, 1, heads, D].
        """
        prompt_keys, prompt_values = self._layers[layer]
        rows, heads, groups = query.shape[0], key.shape[1], prompt_keys.shape[0]
        queries = query.reshape(rows, heads, -1, query.shape[-1])  # by the key head that they share
        own = attend(queries, key, value, scale)
        slots = queries if self._full else queries[self._row_of_slot]
        together = slots.unflatten(0, (groups, -1)).transpose(1, 2).flatten(2, 3)
        mask = None
        if self._mask is not None:
            mask = self._mask.expand(-1, -1, together.shape[2], -1)
        seen = attend(together, prompt_keys, prompt_values, scale, mask=mask)
        repeat = queries.shape[2]
        output, _ = join(self._by_row(seen[0], repeat), self._by_row(seen[1], repeat), own[0], own[1])
        return output.reshape(rows, 1, -1, query.shape[-1])

    def _by_row(self, part: torch.Tensor, repeat: int) -> torch.Tensor:
        """From [groups, heads, slots * repeat, ...] to [rows, heads, repeat, ...]."""
        slots: torch.Tensor = part.unflatten(2, (-1, repeat)).transpose(1, 2).flatten(0, 1)
        return slots if self._full else slots[self._slot_of_row]
