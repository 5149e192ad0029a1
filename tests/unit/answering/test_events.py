"""Events and requests survive the way between processes."""

from __future__ import annotations

import json

import pytest

from erv.answering.events import (
    Answer,
    Done,
    Error,
    Event,
    Queued,
    Seconds,
    Seen,
    Sentence,
    Started,
    Token,
    Usage,
    event_of,
)
from erv.answering.requests import Request, request_of

SAID = Sentence(0, "He smiles.", {"happiness": 0.9}, ("happiness",), True)
EVENTS = [
    Queued(3),
    Started(),
    Seen(("AAAA",), (0.0, 0.5), 1.25),
    Token("é"),
    SAID,
    Answer("happiness", {"happiness": 1.0}),
    Answer(None, {}),
    Done("happiness", "He smiles.", "...", 1.0, (SAID,), "stop", Usage(5, 2), Seconds(0.1, None, 0.3), 7.5),
    Error("no such clip", "clip"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.kind)
def test_an_event_is_the_same_after_json(event: Event) -> None:
    content = json.loads(json.dumps(event.as_dict()))
    assert content["kind"] == event.kind
    assert event_of(content) == event


@pytest.mark.parametrize("content", [None, b"", b"film"])
@pytest.mark.parametrize("audio", [None, b"sound"])
def test_a_request_is_the_same_after_its_way(content: bytes | None, audio: bytes | None) -> None:
    request = Request(content, "a.mp4", audio, "mafw", "You came!", "Who?", 5, show=True)
    head, *files = request.packed(7)
    read = json.loads(head)
    assert read["number"] == 7
    waiting = iter(files)
    given = [next(waiting) if there else None for there in read["has"]]
    assert request_of(read, *given) == request
    assert not list(waiting)
