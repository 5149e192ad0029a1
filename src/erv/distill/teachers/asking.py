"""The question to a teacher about a sentence, and the reading of its reply."""

from __future__ import annotations

import json
from typing import Any, NoReturn, Protocol

from erv.labels import NEUTRAL, LabelSpace
from erv.sentences import encodable

Message = dict[str, str]
"""`role` and `content`, both text."""

MAX_LABELS = 3
SHOWN_CHARACTERS = 200
# As much of a malformed reply as shows what was wrong with it.
_REPEATED_CHARACTERS = 500
_LONGEST_LABEL = 40

_TASK = """\
You label single sentences. They come from descriptions of how a person in a video looks, speaks and acts.
Say which emotions of that person the sentence tells of.

Labels: {names}

- Judge by the sentence alone.
- Give one to three labels, spelled exactly as above.
- A sentence that tells of no emotion has the one label {neutral}, which never stands beside another.
- Reply with one JSON object of this form and with nothing else: {form}"""
_FORM = '{"labels": ["..."]}'
_CORRECTION = (
    "That reply can't be used: {reason}. Label the same sentence again. Reply only with a JSON object of the"
    " form {form}, with one to three of these labels: {names}."
)


class Question(Protocol):
    """What is asked about a text, and how a reply is read.

    Attributes:
        unit: what a text is, in the plural, for messages.
        done: what has happened to one that has a usable reply, for messages.
    """

    unit: str
    done: str

    def messages(self, text: str) -> list[Message]:
        """The conversation that asks about a text."""

    def read(self, reply: str) -> tuple[Any, ...] | str:
        """What a reply says; or, as text, why it is malformed."""

    def correction(self, reply: str, reason: str) -> list[Message]:
        """The next turns of a conversation after a malformed reply."""


class LabelQuestion:
    """Asks for the emotions that a sentence tells of.

    Args:
        space: the labels.
    """

    unit, done = "sentences", "labelled"

    def __init__(self, space: LabelSpace) -> None:
        self._space = space

    def messages(self, text: str) -> list[Message]:
        """See `first_messages`."""
        return first_messages(text, self._space)

    def read(self, reply: str) -> tuple[str, ...] | str:
        """See `read_reply`."""
        return read_reply(reply, self._space)

    def correction(self, reply: str, reason: str) -> list[Message]:
        """See `correction`."""
        return correction(reply, reason, self._space)


def first_messages(sentence: str, space: LabelSpace) -> list[Message]:
    """The conversation that asks for the labels of a sentence."""
    task = _TASK.format(names=", ".join(space.names), neutral=NEUTRAL, form=_FORM)
    return [{"role": "system", "content": task}, {"role": "user", "content": encodable(sentence)}]


def correction(reply: str, reason: str, space: LabelSpace) -> list[Message]:
    """The next turns of a conversation after a malformed reply.

    Args:
        reply: the malformed reply.
        reason: what `read_reply` says about it.
        space: the label space.
    """
    # Not every server and chat template accepts an empty turn.
    repeated = encodable(reply[:_REPEATED_CHARACTERS]).strip() or "(nothing)"
    wanted = _CORRECTION.format(reason=reason, form=_FORM, names=", ".join(space.names))
    return [{"role": "assistant", "content": repeated}, {"role": "user", "content": encodable(wanted)}]


def read_reply(text: str, space: LabelSpace) -> tuple[str, ...] | str:
    """The labels that a reply names, in the order of the space; or, as text, why it is malformed.

    A reply is the JSON object `{"labels": [...]}` with one to three names or synonyms of the space, bare or
    fenced by three backticks, and possibly after thinking that ends with `</think>`. The opening tag may be
    missing: some chat templates write it at the end of the prompt.
    """
    loaded = load_reply(text)
    if isinstance(loaded, str):
        return loaded
    content = loaded[0]
    if not isinstance(content, dict) or set(content) != {"labels"} or not isinstance(content["labels"], list):
        return "it is not a JSON object with the one key labels and a list of names"
    given = content["labels"]
    if not 1 <= len(given) <= MAX_LABELS:
        return f"it has {len(given)} labels"
    named = set()
    for item in given:
        if not isinstance(item, str):
            return "a label is not text"
        label = space.normalize(item)
        if label is None:
            return f"{one_line(item, _LONGEST_LABEL)!r} is not one of the labels"
        named.add(label)
    if NEUTRAL in named and len(named) > 1:
        return f"{NEUTRAL} stands beside another label"
    return tuple(name for name in space.names if name in named)


def load_reply(text: str) -> tuple[Any] | str:
    """The JSON value in a reply, see `read_reply`, as a tuple of one; or, as text, why there is none."""
    body = text.rpartition("</think>")[2].strip()
    if body.startswith("<think>"):
        return "the thinking has no end"
    if not body:
        return "it is empty"
    if body.startswith("```") and body.endswith("```") and len(body) > 6:
        body = body[3:-3].strip()
        body = body[4:].lstrip() if body[:4].lower() == "json" else body
    try:
        content = json.loads(body, parse_constant=_no_constant)
    except ValueError:
        return "it is not a JSON object alone"
    except RecursionError:
        return "it is nested too deeply"
    return (content,)


def one_line(text: str, length: int = SHOWN_CHARACTERS) -> str:
    """The start of an external text, made fit for a message: printable, on one line, truncated."""
    # A little more than is kept, because blanks are dropped; a reply can have any length.
    plain = "".join(mark if mark.isprintable() else " " for mark in text[: 4 * length])
    line = " ".join(plain.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
