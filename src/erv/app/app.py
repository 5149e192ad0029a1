"""The application of `erv app`: its pages, and the addresses that their scripts ask."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from typing import Annotated, Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import Send

from erv.answering.clips import ClipError, ServedClips
from erv.app.asking import LINES, Asking, wanted
from erv.app.clips import file_of, listed, media_type_of
from erv.app.feedback import LONGEST, Feedback, Opinion
from erv.app.given import Given, Memory
from erv.app.names import datasets_of
from erv.app.versions import Choice, NoVersion, Versions
from erv.errors import ErvError
from erv.web.errors import Refused
from erv.web.gate import HEALTH
from erv.web.pages import STATIC, Pages, Static

logger = logging.getLogger(__name__)

_Model = TypeVar("_Model", bound=BaseModel)

_NOT_LISTED = "the versions can't be listed now; the server's log says why"
_NOT_LOADED = "this version can't be loaded now; the server's log says why"
_LONGEST_ID = 100  # characters
_FORGOTTEN = "is not remembered any more; let the clip be explained again"
FEATURES = ("camera", "microphone")  # that the pages ask the user for


class _Sent(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


_WRITTEN = StringConstraints(strip_whitespace=True, min_length=1)  # blanks are no correction


class _Opinion(_Sent):
    id: str = Field(max_length=_LONGEST_ID)
    thumb: Literal["up", "down"] | None = None
    emotion: Annotated[str, _WRITTEN, Field(max_length=100)] | None = None
    explanation: Annotated[str, _WRITTEN, Field(max_length=LONGEST)] | None = None
    preferred: bool | None = None
    beside: str | None = Field(default=None, max_length=_LONGEST_ID)


class _Pair(_Sent):
    versions: list[str] = Field(min_length=2, max_length=2)


class _Version(_Sent):
    version: str


class _Sides(_Sent):
    sides: list[str] = Field(min_length=1, max_length=2)


class App:
    """What the addresses do.

    Args:
        versions: that can be asked.
        feedback: keeps what people say.
        clips: the served folder.
        seconds: within which a clip must be answered.
        most_mb: the largest file that a page may send.
    """

    def __init__(
        self, versions: Versions, feedback: Feedback, clips: ServedClips, *, seconds: float, most_mb: int
    ) -> None:
        self._versions, self._feedback, self._clips, self._most_mb = versions, feedback, clips, most_mb
        self._memory = Memory()
        self._asking = Asking(versions, self._memory, feedback, clips, seconds)
        self._pages = Pages("erv.app")

    def starlette(self) -> Starlette:
        """The application, to be put behind `erv.web.site.site`."""
        return Starlette(
            routes=[
                Route(HEALTH, self._health),
                Route("/", self._page),
                Route("/live", self._live),
                Route("/clips/{name:path}", self._clip),
                Route("/open", self._open, methods=["POST"]),
                Route("/explain", self._explain, methods=["POST"]),
                Route("/pair", self._pair, methods=["POST"]),
                Route("/reveal", self._reveal, methods=["POST"]),
                Route("/feedback", self._opinion, methods=["POST"]),
                Mount(STATIC, Static(["erv.app"])),
            ]
        )

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _page(self, _: Request) -> Response:
        clips = await asyncio.to_thread(listed, self._clips)
        choices = await self._choices()
        return self._pages.page(
            "app/explain.html.j2", choices=choices, clips=clips, most_mb=self._most_mb, at="explain"
        )

    async def _live(self, _: Request) -> Response:
        choices = await self._choices()
        return self._pages.page("app/live.html.j2", choices=choices, most_mb=self._most_mb, at="live")

    async def _choices(self) -> list[Choice]:
        try:
            found = await asyncio.to_thread(self._versions.choices)
        except ErvError as error:
            logger.error("the versions can't be listed: %s", error)
            raise Refused(503, _NOT_LISTED) from None
        return list(found)

    async def _clip(self, http: Request) -> Response:
        name = http.path_params["name"]
        try:
            path = await asyncio.to_thread(file_of, self._clips, name)
        except ClipError as error:
            raise Refused(404, str(error)) from None
        return FileResponse(path, media_type=media_type_of(name))

    async def _open(self, http: Request) -> Response:
        """Answers once a version is loaded, with the data sets that it was tested with."""
        sent = await _read(http, _Version)
        try:
            loaded = await asyncio.to_thread(self._versions.get, sent.version)
        except NoVersion as error:
            raise Refused(404, str(error)) from None
        except ErvError as error:
            logger.error("version %s can't be loaded: %s", sent.version, error)
            raise Refused(503, _NOT_LOADED) from None
        datasets = await asyncio.to_thread(datasets_of, loaded.opened.folder)
        return JSONResponse({"title": loaded.title, "datasets": datasets})

    async def _explain(self, http: Request) -> Response:
        asked = await wanted(http, self._memory)
        return _Lines(self._asking.lines(http, asked), media_type=LINES)

    async def _pair(self, http: Request) -> Response:
        sent = await _read(http, _Pair)
        if sent.versions[0] == sent.versions[1]:
            raise Refused(400, "versions: name two different ones to compare", param="versions")
        return JSONResponse({"sides": self._memory.pair(sent.versions)})

    async def _reveal(self, http: Request) -> Response:
        sent = await _read(http, _Sides)
        titles = {choice.id: choice.title for choice in await self._choices()}
        sides = [self._memory.side_of(side) for side in sent.sides]
        shown = [None if one is None else titles.get(one.version, one.version) for one in sides]
        return JSONResponse({"titles": shown})

    async def _opinion(self, http: Request) -> Response:
        sent = await _read(http, _Opinion)
        given = self._memory.given(sent.id)
        if given is None:
            raise Refused(404, f"this answer {_FORGOTTEN}", param="id")
        if sent.beside is not None and not self._is_beside(sent.beside, given):
            raise Refused(404, f"the answer beside this one {_FORGOTTEN}", param="beside")
        said = Opinion(sent.thumb, sent.emotion, sent.explanation, sent.preferred, sent.beside)
        await asyncio.to_thread(self._feedback.add, given, said)
        return JSONResponse({"kept": given.kept is not None})

    def _is_beside(self, other: str, given: Given) -> bool:
        """Whether an id is that of another answer about the same clip."""
        beside = self._memory.given(other)
        return beside is not None and other != given.id and beside.sha256 == given.sha256


class _Lines(StreamingResponse):
    """Ends what writes the lines when the client leaves, rather than when its memory is collected."""

    async def stream_response(self, send: Send) -> None:
        async with contextlib.aclosing(cast("AsyncGenerator[bytes]", self.body_iterator)):
            await super().stream_response(send)


async def _read(http: Request, model: type[_Model]) -> _Model:
    try:
        return model.model_validate_json(await http.body())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or None
        raise Refused(400, f"{place or 'the body'}: {first['msg']}", param=place) from None
