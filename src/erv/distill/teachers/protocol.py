"""The interface of a teacher: labels for sentences, and their cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from erv.chat import Refusal, Usage

Verdict = tuple[str, ...] | Refusal
"""Canonical names of the label space in its order, at least one; or why there are none."""


class Teacher(Protocol):
    """Anything that labels sentences with emotions."""

    @property
    def name(self) -> str:
        """Its name in tables and messages."""

    @property
    def usage(self) -> Usage:
        """Its usage so far, over all calls of `label`."""

    def label(self, sentences: Sequence[str]) -> list[Verdict]:
        """One verdict per sentence, in order; a repeated sentence is asked only once.

        Raises:
            ErvError: the teacher can't continue.
        """
