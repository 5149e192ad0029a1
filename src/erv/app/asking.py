"""Asks a version about a clip that a page sends or names; passes on what it says, a JSON line per event."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from starlette.requests import Request as HttpRequest

from erv.answering.clips import ClipError, ServedClips
from erv.answering.events import Done, Error
from erv.answering.process import QueueFull, Ticket
from erv.answering.requests import Request
from erv.answering.told import ClientLeft, told
from erv.app.clips import file_of
from erv.app.feedback import Feedback
from erv.app.given import Given, Memory, new_id
from erv.app.versions import Loaded, Versions
from erv.errors import ErvError
from erv.files import sha256_of_file
from erv.web.errors import Refused

LINES = "application/x-ndjson"
_LONGEST_NAME = 200
_NOT_KEPT = "the clip could not be kept: it is gone, or the disk is full"


@dataclass(frozen=True)
class Wanted:
    """What a page asks.

    Attributes:
        version: id of the version.
        blind: whether the page may not learn which that is.
        name: of the clip, for people; for a clip of the served folder its path there.
        content: the file; None for a clip of the served folder.
        dataset: see `Request`.
        subtitle: see `Request`.
        keep: whether the clip is kept once it is answered.
    """

    version: str
    blind: bool
    name: str
    content: bytes | None
    dataset: str | None
    subtitle: str | None
    keep: bool


async def wanted(http: HttpRequest, memory: Memory) -> Wanted:
    """Reads a request of a page: what is asked in its address, the file of the clip as its body.

    Raises:
        Refused: 400, it is not what our pages send.
    """
    asked = http.query_params
    content = await http.body()
    side, version = asked.get("side"), asked.get("version")
    if side is not None:
        version = memory.version_of(side)
    if version is None:
        raise Refused(400, "name a version; if this pair is too old, load the page again", param="version")
    served, name = asked.get("clip"), asked.get("name") or "clip"
    if (served is None) == (not content):
        raise Refused(400, "send a clip, or name one of the served folder; not both", param="clip")
    return Wanted(
        version,
        side is not None,
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

    async def lines(self, http: HttpRequest, asked: Wanted) -> AsyncIterator[bytes]:
        """Yields `opening` if the version must be loaded, `answering`, and then the events of the answer."""
        if not self._versions.is_loaded(asked.version):
            yield _line({"kind": "opening"})
        try:
            loaded = await asyncio.to_thread(self._versions.get, asked.version)
            ticket = await asyncio.to_thread(loaded.answerer.submit, _request(asked))
        except QueueFull as error:
            yield _line({"kind": "error", "sentence": str(error), "code": "full"})
            return
        except ErvError as error:
            yield _line({"kind": "error", "sentence": str(error), "code": "version"})
            return
        number = new_id()
        known = {"version": loaded.title, "notice": loaded.opened.notice}
        yield _line({"kind": "answering", "id": number, **(dict.fromkeys(known) if asked.blind else known)})
        async for line in self._answer(http, asked, loaded, ticket, number):
            yield line

    async def _answer(
        self, http: HttpRequest, asked: Wanted, loaded: Loaded, ticket: Ticket, number: str
    ) -> AsyncIterator[bytes]:
        try:
            async with contextlib.aclosing(told(ticket, http, self._seconds)) as events:
                async for event in events:
                    if isinstance(event, Done):
                        try:
                            await asyncio.to_thread(self._remember, asked, loaded, number, event)
                        except (ClipError, OSError):
                            yield _line(Error(_NOT_KEPT, "failed").as_dict())
                            return
                    yield _line(event.as_dict())
        except ClientLeft:
            return
        except Refused as error:
            yield _line({"kind": "error", "sentence": error.detail, "code": "late"})

    def _remember(self, asked: Wanted, loaded: Loaded, number: str, done: Done) -> None:
        if asked.content is not None:
            digest = sha256(asked.content).hexdigest()
        else:
            digest = sha256_of_file(file_of(self._clips, asked.name))
        kept = None
        if asked.keep:
            content = asked.content or file_of(self._clips, asked.name).read_bytes()
            kept = self._feedback.keep(asked.name, content)
        self._memory.remember(Given(number, loaded.opened, asked.name, digest, kept, asked.subtitle, done))


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
