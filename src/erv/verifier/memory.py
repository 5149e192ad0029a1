"""Remembers what a verifier has read, because sentences recur within a batch and from step to step.

Policies repeat themselves, so most sentences of a training step were read in an earlier one. But the last
bits of a logit depend on the sentences that shared its batch: a resumed run that re-read an old sentence
would differ from the interrupted run. So the memory goes into the checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from erv.manifest import write_table

FILE = "sentence_memory.parquet"
LIMIT = 100_000  # sentences; with eleven labels about 20 MB


class SentenceMemory:
    """Logits by sentence; above `limit`, the least recently used are forgotten."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._rows: dict[str, torch.Tensor] = {}  # the most recently used is at the end

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, sentence: str) -> torch.Tensor | None:
        """Its logits, float32 [labels], or None."""
        row = self._rows.pop(sentence, None)
        if row is not None:
            self._rows[sentence] = row
        return row

    def peek(self, sentence: str) -> torch.Tensor | None:
        """Like `find`, but leaves no trace in the order of use."""
        return self._rows.get(sentence)

    def note(self, sentences: Sequence[str], logits: torch.Tensor) -> None:
        """Remembers the logits, float32 [n, labels], of n sentences."""
        for sentence, row in zip(sentences, logits, strict=True):
            self._rows.pop(sentence, None)
            self._rows[sentence] = row.clone()
        for sentence in list(self._rows)[: max(0, len(self._rows) - self._limit)]:
            del self._rows[sentence]

    def save(self, checkpoint: Path) -> None:
        """Writes everything into a checkpoint's folder."""
        rows = [row.tolist() for row in self._rows.values()]
        table = pa.table(
            {"sentence": list(self._rows), "logits": pa.array(rows, pa.list_(pa.float32()))},
        )
        write_table(table, checkpoint / FILE)

    def load(self, checkpoint: Path) -> None:
        """Takes over what a checkpoint holds; a checkpoint without a memory empties it."""
        self._rows = {}
        if (checkpoint / FILE).is_file():
            table = pq.read_table(checkpoint / FILE)
            rows = zip(table.column("sentence").to_pylist(), table.column("logits").to_pylist(), strict=True)
            self._rows = {sentence: torch.tensor(logits) for sentence, logits in rows}


class MemoryView(SentenceMemory):
    """A read-only view of a memory that others fill: reading through it changes nothing."""

    def __init__(self, memory: SentenceMemory) -> None:
        super().__init__(limit=0)
        self._memory = memory

    def __len__(self) -> int:
        return len(self._memory)

    def find(self, sentence: str) -> torch.Tensor | None:
        """Its logits, float32 [labels], or None."""
        return self._memory.peek(sentence)

    def note(self, sentences: Sequence[str], logits: torch.Tensor) -> None:
        """Remembers nothing."""
