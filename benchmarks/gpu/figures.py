"""What a part found: written to its file at once, so that a part that is stopped keeps what it had."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class Lacks(Exception):
    """A part can't run here; the message says what is missing."""


class Figures:
    """The figures of one part, and the faults that they show."""

    def __init__(self, path: Path) -> None:
        """Starts without figures.

        Args:
            path: the JSON file; it is replaced as a whole at each change.
        """
        self._path = path
        self.headline = ""
        self.faults: list[str] = []
        self.values: dict[str, Any] = {}

    def add(self, **values: Any) -> None:
        """Adds figures by name."""
        self.values |= values
        self._write()

    def check(self, what: str, found: float, limit: float) -> None:
        """Adds a figure beside the largest value it may have; above that, or not a number, is a fault."""
        self.values[what] = {"found": found, "limit": limit}
        if not (math.isfinite(found) and found <= limit):
            self.faults.append(f"{what} is {found:.3g}, at most {limit:g} was expected")
        self._write()

    def hold(self, what: str, true: bool) -> None:
        """Adds something that has to be true."""
        self.values[what] = true
        if not true:
            self.faults.append(f"not true: {what}")
        self._write()

    def fail(self, sentence: str) -> None:
        """Adds a fault."""
        self.faults.append(sentence)
        self._write()

    def say(self, headline: str) -> None:
        """The one line of this part that tables show."""
        self.headline = headline
        self._write()

    def _write(self) -> None:
        content = {"headline": self.headline, "faults": self.faults, "figures": self.values}
        temporary = self._path.with_suffix(".new")
        temporary.write_text(json.dumps(content), encoding="utf-8")
        temporary.replace(self._path)


def read_figures(path: Path) -> Mapping[str, Any]:
    """What a part wrote; empty if it was stopped before its first figure."""
    if not path.is_file():
        return {"headline": "", "faults": [], "figures": {}}
    return json.loads(path.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Context:
    """What a part is told.

    Attributes:
        size: size of `benchmarks.grpo_sizes`.
        device: `cuda` or `cpu`.
        rounds: measured turns of each side.
        folder: an empty folder; it is removed afterwards.
        figures: where its results go.
    """

    size: str
    device: str
    rounds: int
    folder: Path
    figures: Figures

    @property
    def on_gpu(self) -> bool:
        """Whether seconds, memory and half precision mean something."""
        return self.device == "cuda"

    @property
    def dtype(self) -> str:
        """What training computes in here, as `runtime.dtype` names it."""
        return "bfloat16" if self.on_gpu else "float32"

    @property
    def adapters(self) -> bool:
        """Whether this size trains adapters rather than all weights."""
        return self.size == "7b"
