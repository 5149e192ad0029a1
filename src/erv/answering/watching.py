"""Watches a batch while it is generated: the tokens of each row, and which rows are to stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import StoppingCriteria
from transformers.generation.streamers import BaseStreamer


class Watcher(BaseStreamer, StoppingCriteria):
    """The streamer and the stopping criterion of one call of transformers' `generate`.

    A row that is cancelled, or has as many tokens as it may, stops; the others go on, and the batch ends with
    the last of them.

    Args:
        limits: most tokens of each row.
        end: id of the end token.
        cancelled: whether a row is to stop.
        on_tokens: called after each step with the rows that got a token; per row its number, and whether it
            stops here and how: `stop`, `length` or `cancelled`, or None if it goes on.
    """

    def __init__(
        self,
        limits: Sequence[int],
        end: int,
        cancelled: Callable[[int], bool],
        on_tokens: Callable[[Sequence[tuple[int, str | None]]], None],
    ) -> None:
        self.tokens: list[list[int]] = [[] for _ in limits]
        self._limits, self._end = limits, end
        self._cancelled, self._on_tokens = cancelled, on_tokens
        self._going = set(range(len(limits)))
        self._dropped: set[int] = set()
        self._steps = -1  # the prompt comes first

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Which rows stop with the token that was just chosen, bool [rows]."""
        self._dropped = {row for row in self._going if self._cancelled(row)}
        given = self._steps + 1  # tokens of each row that goes on, this one included
        stops = [row in self._dropped or given >= limit for row, limit in enumerate(self._limits)]
        return torch.tensor(stops, dtype=torch.bool, device=input_ids.device)

    def put(self, value: torch.Tensor) -> None:
        """The prompts, then the next token of each row, long [rows]."""
        self._steps += 1
        if not self._steps:
            return
        found: list[tuple[int, str | None]] = []
        for row in sorted(self._going):
            token = int(value[row])
            self.tokens[row].append(token)
            ended = None
            if row in self._dropped:
                ended = "cancelled"
            elif token == self._end:
                ended = "stop"
            elif len(self.tokens[row]) >= self._limits[row]:
                ended = "length"
            found.append((row, ended))
        self._going -= {row for row, ended in found if ended is not None}
        self._on_tokens(found)

    def end(self) -> None:
        """The batch has ended; each row has said so before."""
