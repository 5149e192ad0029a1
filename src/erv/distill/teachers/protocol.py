"""The interface of a teacher: labels for sentences, and their cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from erv.errors import ErvError


class TeacherError(ErvError):
    """A teacher can't continue: its server refuses or is gone, or the budget is spent."""


@dataclass(frozen=True)
class Refusal:
    """A sentence without labels.

    Attributes:
        reason: "malformed" (no reply in the required form), "no_answer" (no reply at all) or "disagreement"
            (of several teachers).
        detail: one line about it, e.g. the start of the last reply or the last error; contains no secret.
    """

    reason: str
    detail: str


Verdict = tuple[str, ...] | Refusal
"""Canonical names of the label space in its order, at least one; or why there are none."""


@dataclass(frozen=True)
class Usage:
    """A teacher's usage so far.

    Attributes:
        requests: replies received, malformed ones included; retries after errors are not counted.
        cached: sentences with a reply stored by an earlier run; they cost nothing.
        retried_replies: malformed replies after which the sentence was asked again.
        prompt_tokens: as the server reports them, or the upper bound of the request if it reports none.
        reply_tokens: likewise.
        cost: of those tokens, in the currency of the prices; None without prices.
    """

    requests: int = 0
    cached: int = 0
    retried_replies: int = 0
    prompt_tokens: int = 0
    reply_tokens: int = 0
    cost: float | None = None


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
