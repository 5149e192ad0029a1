"""What every teacher offers: labels for sentences, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from erv.errors import ErvError


class TeacherError(ErvError):
    """A teacher can't be asked any further: its server refuses or is gone, or the budget is spent."""


@dataclass(frozen=True)
class Refusal:
    """A sentence without labels.

    Attributes:
        reason: "malformed" (no reply of the agreed form), "no_answer" (no reply at all) or "disagreement"
            (of several teachers).
        detail: one line on it, e.g. the beginning of the last reply or the last error; holds no secret.
    """

    reason: str
    detail: str


Verdict = tuple[str, ...] | Refusal
"""Canonical names of the label space in its order, at least one; or why there are none."""


@dataclass(frozen=True)
class Usage:
    """What a teacher was asked so far.

    Attributes:
        requests: replies that came, malformed ones too; retries after errors are not counted.
        cached: sentences whose reply was known from an earlier run; they cost nothing.
        retried_replies: malformed replies after which the sentence was asked again.
        prompt_tokens: as the server reports them; the upper bound of a request where it reports none.
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
        """What tables and messages call it."""

    @property
    def usage(self) -> Usage:
        """What it was asked so far, over all calls of `label`."""

    def label(self, sentences: Sequence[str]) -> list[Verdict]:
        """One verdict per sentence, in their order; a sentence that occurs twice is asked once.

        Raises:
            ErvError: the teacher can't be asked any further.
        """
