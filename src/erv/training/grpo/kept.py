"""State outside the trainer in its checkpoints: each process saves and restores its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol


class Kept(Protocol):
    """State outside the trainer that affects the result of a run."""

    def save(self, checkpoint: Path) -> None:
        """Writes the state into a checkpoint's folder."""

    def load(self, checkpoint: Path) -> None:
        """Restores the state from a checkpoint's folder."""


def save_kept(kept: Sequence[Kept], checkpoint: Path, process: int) -> None:
    """Writes the states of a process into a checkpoint."""
    for item in kept:
        item.save(_own_part(checkpoint, process))


def load_kept(kept: Sequence[Kept], checkpoint: Path, process: int) -> None:
    """Restores the states of a process from a checkpoint."""
    for item in kept:
        item.load(_own_part(checkpoint, process))


def _own_part(checkpoint: Path, process: int) -> Path:
    """Where a process saves its own state; for the main process, number 0, the checkpoint folder itself."""
    if process == 0:
        return checkpoint
    part = checkpoint / f"process-{process}"
    part.mkdir(parents=True, exist_ok=True)
    return part
