"""Asks a version about a clip that a page sends or names; passes on what it says, a JSON line per event."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any, TypeVar

from starlette.requests import Request as HttpRequest

from erv.answering.clips import ClipError, ServedClips
from erv.answering.events import Done, Error
from erv.answering.process import QueueFull, Ticket
from erv.answering.requests import Request
from erv.answering.told import ClientLeft, told
from erv.app.clips import file_of
from erv.app.feedback import Feedback
from erv.app.given import Given, Memory, new_id
from erv.app.names import name_of
from erv.app.versions import Loaded, NoVersion, Versions
from erv.errors import ErvError
from erv.files import sha256_of_file
from erv.web.errors import Refused

logger = logging.getLogger(__name__)

LINES = "application/x-ndjson"
_LONGEST_NAME = 200
_NOT_KEPT = "the clip could not be kept: it is gone or was changed, or the disk is full"
_NOT_ASKED = "this version can't be asked now; the server's log says why"
_ONE_NOT_ASKED = "one of the two versions can't be asked now; the server's log says why"
_T = TypeVar("_T")


@dataclass(frozen=True)
class Wanted:
    """What a page asks.

    Attributes:
        version: id of the version.
        pair: of a blind comparison both versions; empty where the page may know which version answers.
        name: of the clip, for people; for a clip of the served folder its path there.
        content: the file; None for a clip of the served folder.
        dataset: see `Request`.
        subtitle: see `Request`.
        keep: whether the clip is kept once it is answered.
    """

    version: str
    pair: tuple[str, ...]
    name: str
    content: bytes | None
    dataset: str | None
    subtitle: str | None
    keep: bool

    @property
    def needed(self) -> tuple[str, ...]:
        """The versions that must be loaded."""
        return self.pair or (self.version,)


async def wanted(http: HttpRequest, memory: Memory) -> Wanted:
    """Reads a request of a page: what is asked in its address, the file of the clip as its body.

    Raises:
        Refused: 400, it is not what our pages send.
    """
    asked = http.query_params
    content = await http.body()
    token, version = asked.get("side"), asked.get("version")
    side = None if token is None else memory.side_of(token)
    if token is not None:
        version = None if side is None else side.version
    if version is None:
        raise Refused(400, "name a version; if this pair is too old, load the page again", param="version")
    served, name = asked.get("clip"), asked.get("name") or "clip"
    if (served is None) == (not content):
        raise Refused(400, "send a clip, or name one of the served folder; not both", param="clip")
    return Wanted(
        version,
        () if side is None else side.pair,
        (served or name)[-_LONGEST_NAME:] if served is None else served,
        content or None,
        asked.get("dataset") or None,
        asked.get("subtitle") or None,
        asked.get("keep") == "1",
    )


class Asking:
    """Answers pages.

    Args:
        versions: that can be asked.
        memory: gets the answers.
        feedback: keeps clips.
        clips: the served folder.
        seconds: within which a clip must be answered, once its version is loaded.
    """

    def __init__(
        self, versions: Versions, memory: Memory, feedback: Feedback, clips: ServedClips, seconds: float
    ) -> None:
        self._versions, self._memory, self._feedback = versions, memory, feedback
        self._clips, self._seconds = clips, seconds

    async def lines(self, http: HttpRequest, asked: Wanted) -> AsyncGenerator[bytes]:
        """Yields `opening` if a version must be loaded, `answering`, and then the events of the answer.

        Of a blind pair both are loaded first: if only one side had to wait, that would tell which it is.
        """
        if not all(map(self._versions.is_loaded, asked.needed)):
            yield _line({"kind": "opening"})
        try:
            taken = await _unless_left(partial(self._hand_over, asked), _Taken.end)
        except (ErvError, OSError) as error:
            yield _line(_why_not(asked, error))
            return
        try:
            number, loaded = new_id(), taken.loaded
            version, notice = (None, None) if asked.pair else (loaded.title, loaded.opened.notice)
            yield _line({"kind": "answering", "id": number, "version": version, "notice": notice})
            async with contextlib.aclosing(self._answer(http, asked, taken, number)) as lines:
                async for line in lines:
                    yield line
        finally:
            # What waits for locks and ends processes must not keep the loop; nor is anything awaited here,
            # where the client may have left.
            asyncio.get_running_loop().run_in_executor(None, taken.end)

    def _hand_over(self, asked: Wanted) -> _Taken:
        """Lets a version take on what is asked."""
        digest = self._digest(asked)  # first, as the clip may be gone once it is answered
        with contextlib.ExitStack() as stack:
            used = {name: stack.enter_context(self._versions.using(name)) for name in asked.needed}
            loaded = used[asked.version]
            ticket = loaded.answerer.submit(_request(asked))
            return _Taken(loaded, ticket, digest, stack.pop_all())

    async def _answer(
        self, http: HttpRequest, asked: Wanted, taken: _Taken, number: str
    ) -> AsyncGenerator[bytes]:
        try:
            async with contextlib.aclosing(told(taken.ticket, http, self._seconds)) as events:
                async for event in events:
                    if isinstance(event, Done):
                        given = await asyncio.to_thread(self._remember, asked, taken, number, event)
                        if asked.keep and given.kept is None:
                            yield _line({"kind": "not_kept", "sentence": _NOT_KEPT})
                    yield _line(event.as_dict())
        except ClientLeft:
            return
        except Refused as error:
            yield _line({"kind": "error", "sentence": error.detail, "code": "late"})

    def _digest(self, asked: Wanted) -> str:
        if asked.content is not None:
            return sha256(asked.content).hexdigest()
        try:
            return sha256_of_file(file_of(self._clips, asked.name))
        except OSError as error:
            logger.warning("%r can't be read: %s", asked.name, error)
            raise ClipError("this clip can't be read; the server's log says why") from None

    def _remember(self, asked: Wanted, taken: _Taken, number: str, done: Done) -> Given:
        kept = self._kept(asked, taken.digest) if asked.keep else None
        opened = taken.loaded.opened
        name = name_of(opened.folder, asked.dataset, done.answer)
        given = Given(number, opened, asked.name, taken.digest, kept, asked.subtitle, done, name)
        self._memory.remember(given)
        return given

    def _kept(self, asked: Wanted, digest: str) -> str | None:
        """The name of the kept clip; None if it can't be kept."""
        try:
            content = asked.content or file_of(self._clips, asked.name).read_bytes()
            if sha256(content).hexdigest() != digest:
                raise ClipError("it was changed while it was answered")
            return self._feedback.keep(asked.name, content)
        except (ClipError, OSError) as error:
            logger.warning("%r could not be kept: %s", asked.name, error)
            return None


@dataclass(frozen=True)
class _Taken:
    """A request that a version took on.

    Attributes:
        loaded: the version.
        ticket: of the request.
        digest: SHA-256 of the clip.
        held: keeps what was needed from being closed.
    """

    loaded: Loaded
    ticket: Ticket
    digest: str
    held: contextlib.ExitStack

    def end(self) -> None:
        """It is not answered any further."""
        self.ticket.cancel()
        self.held.close()


async def _unless_left(call: Callable[[], _T], undo: Callable[[_T], None]) -> _T:
    """What a call in a thread gives. No thread can be stopped, so for a client that leaves it is undone.

    Args:
        call: made in a thread.
        undo: gets the result if nobody waits for it any more.
    """
    loop = asyncio.get_running_loop()
    calling = asyncio.ensure_future(asyncio.to_thread(call))

    def clear(done: asyncio.Future[_T]) -> None:
        if not done.cancelled() and done.exception() is None:
            loop.run_in_executor(None, undo, done.result())

    try:
        return await asyncio.shield(calling)
    except asyncio.CancelledError:
        calling.add_done_callback(clear)
        raise


def _why_not(asked: Wanted, error: ErvError | OSError) -> dict[str, Any]:
    """The line for a request that no version takes on. It has no path, and of a blind pair no name."""
    if isinstance(error, ClipError):
        return Error(str(error), "clip").as_dict()
    if isinstance(error, QueueFull):
        return {"kind": "error", "sentence": str(error), "code": "full"}
    if isinstance(error, NoVersion) and not asked.pair:
        return {"kind": "error", "sentence": str(error), "code": "version"}
    logger.error("version %s can't be asked: %s", " or ".join(asked.needed), error)
    return {"kind": "error", "sentence": _ONE_NOT_ASKED if asked.pair else _NOT_ASKED, "code": "version"}


def _request(asked: Wanted) -> Request:
    return Request(
        content=asked.content,
        clip=asked.name if asked.content is None else None,
        dataset=asked.dataset,
        subtitle=asked.subtitle,
        show=True,
    )


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode() + b"\n"
