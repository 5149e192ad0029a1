"""What `erv explain` shows on a terminal and elsewhere."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from erv.answering.events import Answer, Done, Error, Event, Seconds, Sentence, Started, Token, Usage
from erv.predict import told
from erv.predict.told import Told

SENTENCES = (
    Sentence(0, "He shouts.", {}, ("anger",), True),
    Sentence(1, "He smiles.", {}, ("happiness",), False),
    Sentence(2, "It rains.", {}, (), None),
)
TEXT = "<think>He shouts. He smiles. It rains.</think>\n<answer>anger</answer>"


def done(**other: object) -> Done:
    fields = {
        "answer": "anger", "explanation": "...", "completion": TEXT, "agreement": 0.5, "sentences": SENTENCES,
        "ended": "stop", "usage": Usage(5, 20), "seconds": Seconds(0.1, 0.25, 1.0), "tokens_per_second": 26.6,
        **other,
    }  # fmt: skip
    return Done(**fields)  # type: ignore[arg-type]


def screen(output: str) -> list[str]:
    """The lines that a terminal shows, without colours."""
    lines, row, column = [""], 0, 0
    for piece in re.findall(r"\x1b\[[0-9;]*[A-Za-z]|.|\n", re.sub(r"\x1b\[[0-9;]*m", "", output)):
        if piece == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif piece == "\r":
            column = 0
        elif piece.endswith("A") and piece.startswith("\x1b"):
            row -= int(piece[2:-1])
        elif piece == "\x1b[J":
            lines = [*lines[:row], lines[row][:column]]
        else:
            lines[row] = lines[row][:column] + piece + lines[row][column + 1 :]
            column += 1
    return lines


def shown(
    events: Sequence[Event], *, terminal: bool, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> str:
    monkeypatch.setattr(told.shutil, "get_terminal_size", lambda: __import__("os").terminal_size(size))
    written: list[str] = []
    teller = Told("a.mp4", terminal=terminal, write=written.append)
    teller.begin()
    for event in events:
        teller.tell(event)
    return "".join(written)


SUMMARY = [
    "a.mp4",
    "  + He shouts. (anger)",
    "  - He smiles. (happiness)",
    "    It rains.",
    "  anger: 1 of 2 sentences about emotions speak of it",
    "  first words after 0.25 s, 20 tokens, 27 a second, 1.00 s in all",
    "",
]


@pytest.mark.parametrize("step", [1, 5, 200])
def test_a_terminal_shows_the_words_as_they_come_and_then_their_verdict(
    step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = [Token(TEXT[start : start + step]) for start in range(0, len(TEXT), step)]
    before = shown([Started(), *tokens], terminal=True, monkeypatch=monkeypatch, size=(30, 24))
    assert screen(before) == ["a.mp4", "  He shouts. He smiles. It ra", "  ins.", "  anger"]
    after = shown([*tokens, done()], terminal=True, monkeypatch=monkeypatch, size=(30, 24))
    assert screen(after) == SUMMARY


def test_what_a_small_terminal_can_not_take_back_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    after = shown([Token(TEXT), done()], terminal=True, monkeypatch=monkeypatch, size=(30, 3))
    assert screen(after) == ["a.mp4", "  He shouts. He smiles. It ra", "  ins.", "  anger", "", *SUMMARY[1:]]


def test_how_sure_the_policy_is(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [Answer("anger", {"fear": 0.3, "anger": 0.699}), done()]
    lines = screen(shown(events, terminal=True, monkeypatch=monkeypatch, size=(80, 24)))
    assert "  anger (anger 70%): 1 of 2 sentences about emotions speak of it" in lines


def test_elsewhere_nothing_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    after = shown([Token(TEXT), done()], terminal=False, monkeypatch=monkeypatch, size=(30, 24))
    assert re.sub(r"\x1b\[[0-9;]*m", "", after).splitlines() == SUMMARY[:-1]


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (done(answer=None, agreement=None, ended="length"), "  no answer; cut after 20 tokens"),
        (done(agreement=None), "  anger"),
        (done(agreement=0.0, sentences=SENTENCES[2:]), "  anger: no sentence is about emotions"),
        (done(explanation=None, sentences=(), completion="What?\n"), "  What?"),
        (Error("no sound track", "clip"), "  error: no sound track"),
    ],
)
def test_what_is_said_of_other_ends(event: Event, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert line in screen(shown([event], terminal=True, monkeypatch=monkeypatch, size=(80, 24)))
