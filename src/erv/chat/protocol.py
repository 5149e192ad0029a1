"""What is asked about a text, what comes back, and what it cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, TypeVar

from erv.errors import ErvError
from erv.sentences import encodable

Message = dict[str, Any]
"""`role` and `content`: a text, or for endpoints a list of parts (text, image_url, input_audio)."""

SHOWN_CHARACTERS = 200
# As much of a malformed reply as shows what was wrong with it.
_REPEATED_CHARACTERS = 500


class ChatError(ErvError):
    """A chat model can't continue: its server refuses or is gone, or the budget is spent."""


@dataclass(frozen=True)
class Fault:
    """Why a reply can't be used, as part of a sentence: `it is empty`."""

    reason: str


@dataclass(frozen=True)
class Refusal:
    """A text about which there is no usable reply.

    Attributes:
        reason: "malformed" (no reply in the required form), "no_answer" (no reply at all) or "disagreement"
            (of several teachers).
        detail: one line about it, e.g. the start of the last reply or the last error; contains no secret.
    """

    reason: str
    detail: str


@dataclass(frozen=True)
class Usage:
    """A chat model's usage so far.

    Attributes:
        requests: replies received, malformed ones included; retries after errors are not counted.
        cached: texts with a reply stored by an earlier run; they cost nothing.
        retried_replies: malformed replies after which was asked again.
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


Answer = TypeVar("Answer")
Answer_co = TypeVar("Answer_co", covariant=True)


class Questions(Protocol[Answer_co]):
    """The questions about texts, and the reading of the replies.

    Attributes:
        noun: what the texts are, for messages: `sentences`.
        done: what has happened to one with an answer: `labelled`.
        strict: whether a model that mostly replies in another form ends the run; otherwise each text about
            which it does is refused.
    """

    noun: str
    done: str
    strict: bool

    def first(self, text: str) -> list[Message]:
        """The conversation that asks about a text."""

    def read(self, reply: str) -> Answer_co | Fault:
        """The answer in a reply; or why it is malformed."""

    def correction(self, reply: str, reason: str) -> list[Message]:
        """The next turns of a conversation after a malformed reply; see `corrected`."""


class Asked(Protocol):
    """A chat model that can be asked."""

    @property
    def name(self) -> str:
        """Its name in tables and messages."""

    @property
    def usage(self) -> Usage:
        """Its usage so far, over all calls of `ask`."""

    def ask(self, texts: Sequence[str], questions: Questions[Answer]) -> list[Answer | Refusal]:
        """The answer for each text, in order; a repeated text is asked about only once.

        Raises:
            ErvError: the model can't continue.
        """


def corrected(reply: str, wanted: str) -> list[Message]:
    """The start of a malformed reply as the model's turn, and what is wanted instead as the user's."""
    # Not every server and chat template accepts an empty turn.
    repeated = encodable(reply[:_REPEATED_CHARACTERS]).strip() or "(nothing)"
    return [{"role": "assistant", "content": repeated}, {"role": "user", "content": encodable(wanted)}]


def media_in(messages: Sequence[Message]) -> str:
    """What a conversation holds beside text: `images`, `sound`, `images and sound`, or nothing."""
    parts = [
        part for message in messages if not isinstance(message["content"], str) for part in message["content"]
    ]
    types = {part["type"] for part in parts}
    return " and ".join(
        name for kind, name in (("image_url", "images"), ("input_audio", "sound")) if kind in types
    )


def json_object(text: str) -> dict[str, Any] | Fault:
    """The JSON object that a reply consists of.

    It may be fenced by three backticks, and come after thinking that ends with `</think>`. The opening tag
    may be missing: some chat templates write it at the end of the prompt.
    """
    body = text.rpartition("</think>")[2].strip()
    if body.startswith("<think>"):
        return Fault("the thinking has no end")
    if not body:
        return Fault("it is empty")
    if body.startswith("```") and body.endswith("```") and len(body) > 6:
        body = body[3:-3].strip()
        body = body[4:].lstrip() if body[:4].lower() == "json" else body
    try:
        content = json.loads(body, parse_constant=_no_constant)
    except ValueError:
        return Fault("it is not a JSON object alone")
    except RecursionError:
        return Fault("it is nested too deeply")
    return content if isinstance(content, dict) else Fault("it is not a JSON object")


def one_line(text: str, length: int = SHOWN_CHARACTERS) -> str:
    """The start of an external text, made fit for a message: printable, on one line, truncated."""
    # A little more than is kept, because blanks are dropped; a reply can have any length.
    plain = "".join(mark if mark.isprintable() else " " for mark in text[: 4 * length])
    line = " ".join(plain.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
