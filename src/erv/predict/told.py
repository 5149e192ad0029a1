"""Tells a person at a terminal what is said about a clip, while it is said."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping

import click

from erv.answering.events import Answer, Done, Error, Event, Sentence, Token
from erv.prompts import TAGS

_NARROWEST = 20
_MARKS = {True: ("+", "green"), False: ("-", "red"), None: (" ", None)}


class Told:
    """Prints the events of one clip.

    On a terminal, the explanation appears as it is written; once the answer is known, it is printed again in
    its place, a line per sentence: green and `+` if it speaks of the answer, red and `-` if it speaks of
    other emotions. Elsewhere only that is printed.

    Args:
        name: of the clip.
        terminal: whether the output is one, which can go back over what it shows.
        write: takes text as it is.
    """

    def __init__(self, name: str, *, terminal: bool, write: Callable[[str], None]) -> None:
        self._name, self._terminal, self._write = name, terminal, write
        size = shutil.get_terminal_size()
        self._width, self._height = max(_NARROWEST, size.columns - 1), size.lines
        self._scores: Mapping[str, float] = {}
        self._completion = ""
        self._shown = ""
        self._rows = 0  # below the line with the clip's name
        self._column = 0

    def begin(self) -> None:
        """Names the clip."""
        self._write(f"{click.style(self._name, bold=True)}\n")

    def tell(self, event: Event) -> None:
        """Prints what an event says."""
        if isinstance(event, Token) and self._terminal:
            self._completion += event.text
            self._go_on(_without_tags(self._completion))
        elif isinstance(event, Answer):
            self._scores = event.scores
        elif isinstance(event, Done):
            self._clear()
            for line in summary(event, self._scores):
                self._write(f"{line}\n")
        elif isinstance(event, Error):
            self._clear()
            self._write(f"  {click.style('error:', fg='red')} {event.sentence}\n")

    def _go_on(self, text: str) -> None:
        """Prints what is new of the text, in lines of our own, so that we know how many there are."""
        for letter in text[len(self._shown) :]:
            if letter == "\n" or self._column >= self._width:
                self._write("\n")
                self._rows, self._column = self._rows + 1, 0
            if letter != "\n":
                if self._column == 0:
                    self._write("  ")
                    self._column = 2
                self._write(letter)
                # A letter of East Asia takes two columns.
                self._column += 2 if letter > "\u2e7f" else 1
        self._shown = text

    def _clear(self) -> None:
        if not self._shown:
            return
        if self._rows < self._height - 1:
            self._write(f"\r\x1b[{self._rows}A\x1b[J" if self._rows else "\r\x1b[J")
        else:  # its beginning is out of reach
            self._write("\n\n")
        self._shown = ""


def summary(done: Done, scores: Mapping[str, float]) -> Iterator[str]:
    """The lines about a clip that was answered; `scores` are those of its answer."""
    for said in done.sentences:
        yield _sentence(said)
    if done.explanation is None and done.completion:
        yield f"  {' '.join(done.completion.split())}"
    if done.answer is None:
        yield f"  {click.style('no answer', fg='yellow')}{_cut(done)}"
    else:
        best = max(scores, key=lambda name: scores[name], default=None)
        sure = "" if best is None else f" ({best} {scores[best]:.0%})"
        yield f"  {click.style(done.answer, bold=True)}{sure}{_agreement(done)}{_cut(done)}"
    first = (
        "" if done.seconds.first_token is None else f"first words after {done.seconds.first_token:.2f} s, "
    )
    yield click.style(
        f"  {first}{done.usage.completion_tokens} tokens, {done.tokens_per_second:.0f} a second,"
        f" {done.seconds.total:.2f} s in all",
        dim=True,
    )


def _sentence(said: Sentence) -> str:
    mark, colour = _MARKS[said.agrees]
    named = f" ({', '.join(said.labels)})" if said.labels else ""
    text = click.style(f"{mark} {' '.join(said.text.split())}", fg=colour) if colour else f"  {said.text}"
    return f"  {text}{click.style(named, dim=True)}"


def _agreement(done: Done) -> str:
    counted = [one for one in done.sentences if one.agrees is not None]
    if done.agreement is None:
        return ""
    if not counted:
        return ": no sentence is about emotions"
    speak = sum(one.agrees is True for one in counted)
    return f": {speak} of {len(counted)} sentences about emotions speak of it"


def _cut(done: Done) -> str:
    return f"; cut after {done.usage.completion_tokens} tokens" if done.ended == "length" else ""


def _without_tags(text: str) -> str:
    """A completion that grows, without its tags; what may become one is left out."""
    for tag in TAGS:
        text = text.replace(tag, "")
    at = text.rfind("<")
    if at >= 0 and any(tag.startswith(text[at:]) for tag in TAGS):
        text = text[:at]
    return text.lstrip()
