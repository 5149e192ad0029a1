"""`POST /explain`: a clip in, an explanation out, in one piece or as it is written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter
from fastapi.sse import format_sse_event
from starlette.datastructures import UploadFile
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse

from erv.answering.requests import Request
from erv.answering.told import ClientLeft
from erv.serve.bodies import READ_SECONDS, file_in, fitting, late, read_json
from erv.serve.chat import EVENT_STREAM
from erv.serve.schemas import ExplainRequest, Explanation, body_of, explanation
from erv.serve.service import Service, Taken
from erv.web.errors import Refused

_FORM = "multipart/form-data"
_FILES = ("content", "audio")
_EVENTS = {
    "description": "With `Accept: text/event-stream`: first `model`, then `queued`, `started`, `seen` (with"
    " `show`), `token`, `sentence` and `answer` as they come, and at the end `done` or `error`.",
    "model": Explanation,
    "content": {EVENT_STREAM: {"schema": {"type": "string"}}},
}


def explain_routes(service: Service) -> APIRouter:
    """The address `/explain`.

    Args:
        service: answers.
    """
    router = APIRouter(tags=["Explanations"])
    bodies = body_of({"application/json": ExplainRequest, _FORM: ExplainRequest}, _FILES)

    @router.post("/explain", openapi_extra=bodies, responses={200: _EVENTS})
    async def explain(http: HttpRequest) -> Response:
        """Explains the emotion in a clip."""
        form = http.headers.get("content-type", "").lower().startswith(_FORM)
        taken = await service.take(http, lambda: _from_form(http) if form else _from_json(http))
        if EVENT_STREAM in http.headers.get("accept", ""):
            return StreamingResponse(_streamed(service, taken), media_type=EVENT_STREAM)
        return JSONResponse(explanation(taken.version, *await service.answer(taken)))

    return router


async def _from_json(http: HttpRequest) -> Request:
    body = await read_json(http, ExplainRequest, f", or a form ({_FORM}), as curl -F content=@clip.mp4 does")
    content, audio = await asyncio.to_thread(
        lambda: tuple(
            None if text is None else file_in(text, name)
            for name, text in (("content", body.content), ("audio", body.audio))
        )
    )
    return _asked(body, content, audio)


async def _from_form(http: HttpRequest) -> Request:
    """A form: files of more than a megabyte lie in files without a name, which end with the request."""
    try:
        async with asyncio.timeout(READ_SECONDS):
            form = await http.form(max_files=len(_FILES), max_fields=10)
    except TimeoutError:
        raise late() from None
    try:
        names = [name for name, _ in form.multi_items()]
        if twice := {name for name in names if names.count(name) > 1}:
            raise Refused(400, f"{min(twice)}: sent more than once", param=min(twice))
        files: dict[str, bytes | None] = dict.fromkeys(_FILES)
        fields: dict[str, Any] = {}
        for name, value in form.multi_items():
            if isinstance(value, UploadFile) != (name in _FILES):
                kind = "as a file" if name in _FILES else "as a text, not as a file"
                raise Refused(400, f"{name}: send it {kind}", param=name)
            if isinstance(value, UploadFile):
                files[name] = await value.read()
                if not files[name]:
                    raise Refused(400, f"{name}: the file is empty", param=name)
            fields[name] = "sent as a file" if name in _FILES else value
        body = fitting(fields, ExplainRequest)
    finally:
        await form.close()
    return _asked(body, files["content"], files["audio"])


def _asked(body: ExplainRequest, content: bytes | None, audio: bytes | None) -> Request:
    return Request(
        content=content,
        clip=body.clip,
        audio=audio,
        dataset=body.dataset,
        subtitle=body.subtitle,
        prompt=body.prompt,
        max_new_tokens=body.max_new_tokens,
        show=body.show,
    )


async def _streamed(service: Service, taken: Taken) -> AsyncIterator[bytes]:
    yield _sent("model", taken.version.as_dict())
    try:
        async for event in service.events(taken):
            yield _sent(event.kind, event.as_dict())
    except ClientLeft:
        return
    except Refused as error:
        yield _sent("error", {"sentence": error.detail, "code": error.code})


def _sent(kind: str, content: dict[str, Any]) -> bytes:
    data = json.dumps({"kind": kind, **content}, ensure_ascii=False)
    return format_sse_event(data_str=data, event=kind)
