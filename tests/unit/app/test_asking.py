"""What a page is told of its request, and that a request that nobody waits for is answered by nobody."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from erv.answering.clips import ServedClips
from erv.answering.events import Done, Error, Seconds, Usage
from erv.answering.process import Ticket
from erv.answering.requests import Request
from erv.app.app import App
from erv.app.feedback import Feedback, latest
from erv.app.versions import Choice, Versions
from erv.errors import EvaluationError, RegistryError
from erv.register.opened import Opened
from tests.support.websites import local_site, website

DONE = Done(
    "anger", "He shouts.", "<think>He shouts.</think>\n<answer>anger</answer>", 1.0, (), "stop",
    Usage(5, 5), Seconds(0.1, 0.2, 0.3), 9.0,
)  # fmt: skip
WAIT_SECONDS = 30


class Process:
    """Stands for a process with a model, which answers at once, never, or is slow to take a request on."""

    def __init__(self) -> None:
        self.alive, self.waiting, self.answering = True, 0, 0
        self.takes = threading.Event()
        self.takes.set()
        self.asked: list[Request] = []
        self.tickets: list[Ticket] = []
        self.cancelled: list[int] = []
        self.before_done: Callable[[], object] = lambda: None
        self.answers, self.done = True, DONE

    def submit(self, request: Request) -> Ticket:
        self.asked.append(request)
        assert self.takes.wait(WAIT_SECONDS)
        ticket = Ticket(self, len(self.tickets))  # type: ignore[arg-type]
        self.tickets.append(ticket)
        if self.answers:
            self.before_done()
            ticket._tell(self.done)
        return ticket

    def _cancel(self, number: int) -> None:
        self.cancelled.append(number)
        self.tickets[number]._tell(Error("cancelled", "cancelled"))

    def close(self) -> None:
        self.alive = False


class Place:
    """Two versions, `first` and `second`, behind a real server."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.address = folder, ""
        self.processes = {"1": Process(), "2": Process()}
        self.starts = threading.Event()
        self.starts.set()
        self.starting = threading.Event()
        self.broken: set[str] = set()
        self.listed = True
        self.feedback = Feedback(folder / "app")
        for bundle in ("first", "second"):
            (folder / bundle).mkdir()
            (folder / bundle / "serving.json").write_text('{"datasets": {"mafw": null}}')
        (folder / "clips").mkdir()
        (folder / "clips/a.mp4").write_bytes(b"film")
        self.versions = Versions(self._choices, self._start)  # type: ignore[arg-type]
        clips = ServedClips((folder / "clips").resolve())
        self.app = App(self.versions, self.feedback, clips, seconds=WAIT_SECONDS, most_mb=1)

    def _choices(self) -> list[Choice]:
        if not self.listed:
            raise RegistryError(f"{self.folder}/registry: can't be read")
        names = (("1", "first"), ("2", "second"))
        return [Choice(number, name, partial(self._open, number, name)) for number, name in names]

    def _open(self, number: str, name: str) -> Opened:
        if number in self.broken:
            raise RegistryError(f"{self.folder}/{name}/serving.json: not of this version of erv")
        return Opened(name, number, "d", self.folder / name, f"{name} was registered with other code")

    def _start(self, opened: Opened) -> Process:
        self.starting.set()
        assert self.starts.wait(WAIT_SECONDS)
        return self.processes[opened.number]

    def lines(self, query: str, content: bytes = b"film") -> list[dict[str, Any]]:
        answer = httpx.post(f"{self.address}/explain?{query}", content=content, timeout=WAIT_SECONDS)
        assert answer.status_code == 200, answer.text
        return [json.loads(line) for line in answer.text.splitlines()]

    @contextmanager
    def asking(self, query: str) -> Iterator[Iterator[str]]:
        """The lines of a client that leaves at the end of the block."""
        with httpx.stream("POST", f"{self.address}/explain?{query}", content=b"film", timeout=30) as answer:
            yield answer.iter_lines()

    def pair(self) -> dict[str, str]:
        """The token of each version's side, which a page isn't told."""
        sides = httpx.post(f"{self.address}/pair", json={"versions": ["1", "2"]}).json()["sides"]
        return {side.version: token for token in sides if (side := self.app._memory.side_of(token))}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    with website(local_site(place.app.starlette())) as place.address:
        yield place


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def users(place: Place) -> int:
    return sum(one.users for one in place.versions._loaded.values())


@pytest.mark.parametrize("side", ["1", "2"])
def test_both_sides_of_a_blind_pair_are_told_the_same(place: Place, side: str) -> None:
    place.versions.get("1")  # as the version that is asked first
    (opening, answering, done) = place.lines(f"side={place.pair()[side]}")
    assert opening == {"kind": "opening"}
    assert (answering["kind"], answering["version"], answering["notice"]) == ("answering", None, None)
    assert done["kind"] == "done"
    assert len(place.processes[side].asked) == 1
    again = place.lines(f"side={place.pair()[side]}")
    assert [line["kind"] for line in again] == ["answering", "done"], "both are loaded"


@pytest.mark.parametrize("side", ["1", "2"])
def test_an_error_does_not_tell_either(place: Place, side: str) -> None:
    place.broken.add("2")
    said = place.lines(f"side={place.pair()[side]}")
    sentence = "one of the two versions can't be asked now; the server's log says why"
    assert said == [{"kind": "opening"}, {"kind": "error", "sentence": sentence, "code": "version"}]


def test_no_path_of_the_machine_is_told(place: Place) -> None:
    place.broken.add("2")
    (_, said) = place.lines("version=2")
    assert said["sentence"] == "this version can't be asked now; the server's log says why"
    (_, said) = place.lines("version=7")
    assert said["sentence"] == "there is no version '7' to choose; load the page again"

    def dies(_: Request) -> Ticket:
        raise EvaluationError("the process of the model ended (1): File '/home/ann/erv.py'; start it again")

    place.processes["1"].submit = dies  # type: ignore[assignment,method-assign]
    assert str(place.lines("version=1")[-1]["sentence"]).startswith("this version can't be asked now")
    answer = httpx.post(f"{place.address}/open", json={"version": "2"})
    assert answer.status_code == 503
    assert answer.json()["error"]["message"] == "this version can't be loaded now; the server's log says why"
    place.listed = False
    page = httpx.get(place.address)
    assert page.status_code == 503
    assert "be listed now" in page.text
    assert str(place.folder) not in page.text


def test_a_client_that_leaves_while_its_version_loads(place: Place) -> None:
    place.starts.clear()
    with place.asking("version=1") as lines:
        assert json.loads(next(lines)) == {"kind": "opening"}
        assert place.starting.wait(WAIT_SECONDS)
    time.sleep(0.3)
    place.starts.set()
    until(lambda: place.versions.is_loaded("1") and not users(place))
    process = place.processes["1"]
    assert process.cancelled == [0] * len(process.tickets)


def test_a_client_that_leaves_while_its_request_is_handed_over(place: Place) -> None:
    place.versions.get("1")
    process = place.processes["1"]
    process.answers = False
    process.takes.clear()
    with place.asking("version=1"):
        until(lambda: bool(process.asked))
    time.sleep(0.3)
    process.takes.set()
    until(lambda: process.cancelled == [0])
    until(lambda: not users(place))


def test_a_client_that_leaves_before_the_first_event(place: Place) -> None:
    place.versions.get("1")
    process = place.processes["1"]
    process.answers = False
    with place.asking("version=1") as lines:
        assert json.loads(next(lines))["kind"] == "answering"
        assert users(place) == 1
    until(lambda: 0 in process.cancelled)
    until(lambda: not users(place))


def test_a_clip_that_is_gone_at_the_end_costs_no_answer(place: Place) -> None:
    process = place.processes["1"]
    process.before_done = (place.folder / "clips/a.mp4").unlink
    said = place.lines("version=1&clip=a.mp4", b"")
    assert [line["kind"] for line in said] == ["opening", "answering", "done"]
    kept = httpx.post(f"{place.address}/feedback", json={"id": said[1]["id"], "thumb": "up"}).json()["kept"]
    assert kept is False
    (gone,) = place.lines("version=1&clip=a.mp4", b"")
    assert (gone["kind"], gone["sentence"]) == ("error", "no such file below the served folder")


def test_a_clip_that_can_not_be_kept_is_named_beside_its_answer(place: Place) -> None:
    clip = place.folder / "clips/a.mp4"
    place.processes["1"].before_done = lambda: clip.write_bytes(b"another film")
    said = place.lines("version=1&clip=a.mp4&keep=1", b"")
    assert [line["kind"] for line in said] == ["opening", "answering", "not_kept", "done"]
    assert "could not be kept" in said[2]["sentence"]
    said = place.lines("version=1&clip=a.mp4&keep=1", b"")
    assert [line["kind"] for line in said] == ["answering", "done"]
    assert [path.read_bytes() for path in (place.folder / "app/clips").iterdir()] == [b"another film"]


def test_only_another_answer_about_the_same_clip_is_beside_one(place: Place) -> None:
    first, second, other = (
        place.lines(query, content)[-2]["id"]
        for query, content in (("version=1", b"film"), ("version=2", b"film"), ("version=1", b"another"))
    )
    for beside in (other, first, "unknown"):
        sent = {"id": first, "preferred": True, "beside": beside}
        answer = httpx.post(f"{place.address}/feedback", json=sent)
        assert answer.status_code == 404
        assert "the answer beside this one is not remembered" in answer.json()["error"]["message"]
    sent = {"id": first, "preferred": True, "beside": "x" * 10_000}
    assert httpx.post(f"{place.address}/feedback", json=sent).status_code == 400
    assert latest(place.folder / "app") == []
    sent = {"id": first, "preferred": True, "beside": second}
    assert httpx.post(f"{place.address}/feedback", json=sent).status_code == 200
    assert [line["said"]["beside"] for line in latest(place.folder / "app")] == [second]


def test_the_journal_has_the_name_that_an_answer_means(place: Place) -> None:
    process = place.processes["1"]
    for text, name in (("Angry.", "anger"), ("perplexed", None)):
        process.done = replace(DONE, answer=text)
        answer = place.lines("version=1")[-2]["id"]
        httpx.post(f"{place.address}/feedback", json={"id": answer, "thumb": "up"})
        assert (
            latest(place.folder / "app")[-1]["answer"] | {"emotion": text, "name": name}
            == (latest(place.folder / "app")[-1]["answer"])
        )


def test_half_a_character_is_refused(place: Place) -> None:
    answer = place.lines("version=1")[-2]["id"]
    sent = f'{{"id": "{answer}", "explanation": "\\ud83d"}}'.encode()
    assert httpx.post(f"{place.address}/feedback", content=sent).status_code == 400
    assert latest(place.folder / "app") == []
    assert place.lines("version=1&subtitle=%ED%A0%BD")[-1]["kind"] == "done"
    (request,) = place.processes["1"].asked[1:]
    assert (request.subtitle or "").encode()


@pytest.mark.parametrize("field", ["emotion", "explanation"])
def test_blanks_are_no_correction(place: Place, field: str) -> None:
    """They became a row of the exported data set."""
    sent = {"id": place.lines("version=1")[-2]["id"], "thumb": "up"}
    assert httpx.post(f"{place.address}/feedback", json=sent | {field: "  "}).status_code == 400
    assert httpx.post(f"{place.address}/feedback", json=sent | {field: " fear "}).status_code == 200
    assert [line["said"][field] for line in latest(place.folder / "app")] == ["fear"]
