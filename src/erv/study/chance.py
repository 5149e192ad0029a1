"""Everything random in a plan: hashes of its secret decide, so that the same inputs give the same plan.

The secret is made of the seed and of the policies' predictions. Who has only the plan can't compute it, so
codes and names in the plan tell nothing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Chance:
    """Random choices by name.

    Attributes:
        secret: 64 hexadecimal digits.
    """

    secret: str

    @classmethod
    def of(cls, seed: int, name: str, predictions: Mapping[str, str]) -> Chance:
        """The choices of a study.

        Args:
            seed: of the study.
            name: of the study.
            predictions: policy -> SHA-256 of its predictions.
        """
        parts = [str(seed), name, *(f"{policy}={digest}" for policy, digest in sorted(predictions.items()))]
        return cls(hashlib.sha256("\n".join(parts).encode()).hexdigest())

    def shuffled(self, things: Iterable[Thing], what: str, name: Callable[[Thing], str] = str) -> list[Thing]:
        """Things in a random order that doesn't depend on the order in which they are given.

        Args:
            things: with different names.
            what: they are shuffled for.
            name: of a thing.
        """
        return sorted(things, key=lambda thing: self._digest(f"{what}/{name(thing)}"))

    def coin(self, what: str) -> bool:
        """Heads or tails."""
        return bool(self._digest(what)[0] & 1)

    def identifier(self, what: str) -> str:
        """12 lower-case letters and digits that stand for something."""
        return base64.b32encode(self._digest(what))[:12].decode().lower()

    def code(self, what: str) -> str:
        """6 upper-case letters and digits that stand for a policy."""
        return base64.b32encode(self._digest(what))[:6].decode()

    def _digest(self, what: str) -> bytes:
        return hashlib.sha256(f"{self.secret}/{what}".encode()).digest()
