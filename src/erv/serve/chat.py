"""`POST /v1/chat/completions` and `GET /v1/models`, as OpenAI's clients expect them."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from time import time
from typing import Any

from fastapi import APIRouter
from fastapi.sse import format_sse_event
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse

from erv.answering.events import Answer, Done, Error, Event, Queued, Started, Token
from erv.answering.requests import Request
from erv.answering.told import ClientLeft
from erv.serve.bodies import read_json
from erv.serve.chat_request import ChatRequest
from erv.serve.schemas import body_of, verdict
from erv.serve.service import Service, Taken, refused
from erv.serve.versions import Version
from erv.web.errors import Refused

EVENT_STREAM = "text/event-stream"


def chat_routes(service: Service) -> APIRouter:
    """The addresses below `/v1`.

    Args:
        service: answers.
    """
    router = APIRouter(prefix="/v1", tags=["OpenAI-compatible"])

    @router.get("/models")
    async def models() -> dict[str, Any]:
        """The version that answers; by the name of its model, clients get whatever is served."""
        version = service.engine.version
        return {
            "object": "list",
            "data": [
                {"id": name, "object": "model", "created": version.created, "owned_by": "erv"}
                for name in version.ids
            ],
        }

    @router.post("/chat/completions", openapi_extra=body_of({"application/json": ChatRequest}))
    async def chat(http: HttpRequest) -> Response:
        """Explains a clip: one message with a `video_url`, and if wanted `input_audio` and `text`.

        The content of the answer is what the model wrote, with its tags. Agreement, scores and sentences are
        in the field `erv`, beside it or in the last piece.
        """
        asked: list[ChatRequest] = []

        async def read() -> Request:
            body = await read_json(http, ChatRequest)
            _require_model(body.model, service.engine.version)
            asked.append(body)
            return await asyncio.to_thread(body.asked)  # a clip in base64 takes a while

        taken = await service.take(http, read)
        (body,) = asked
        try:
            _require_model(body.model, taken.version)  # another may have taken its place meanwhile
        except Refused:
            taken.ticket.cancel()
            raise
        head = _head(taken.version)
        if not body.stream:
            return JSONResponse(await _whole(service, taken, head))
        events = service.events(taken)
        # What can't be answered is said with a status, so nothing is sent before it is clear.
        first = await _first(events)
        usage = body.stream_options is not None and body.stream_options.include_usage
        return StreamingResponse(_pieces(events, first, head, taken.version, usage), media_type=EVENT_STREAM)

    return router


async def _first(events: AsyncGenerator[Event]) -> Event:
    """The first event of an answer; raises Refused if there is none."""
    try:
        async for event in events:
            if isinstance(event, Error):
                raise refused(event)
            if not isinstance(event, (Queued, Started)):
                return event
    except ClientLeft:
        raise Refused(499, "the client closed the connection") from None
    raise RuntimeError("the events of a request ended without an answer")


def _require_model(name: str, version: Version) -> None:
    if name not in version.ids:
        raise Refused(
            404,
            f"model {name!r} is not served here; there is {' and '.join(version.ids)}",
            param="model",
            code="model_not_found",
        )


def _head(version: Version) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "created": int(time()),
        "model": version.id,
        "system_fingerprint": version.digest[:16],
    }


async def _whole(service: Service, taken: Taken, head: dict[str, Any]) -> dict[str, Any]:
    """The answer in one piece."""
    answer, done = await service.answer(taken)
    message = {"role": "assistant", "content": done.completion, "refusal": None}
    return {
        **head,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": done.ended, "logprobs": None}],
        "usage": _usage(done),
        "erv": verdict(taken.version, answer, done),
    }


async def _pieces(
    events: AsyncGenerator[Event], first: Event, head: dict[str, Any], version: Version, usage: bool
) -> AsyncIterator[bytes]:
    """The answer as server-sent events."""

    def piece(delta: dict[str, Any], ended: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": ended, "logprobs": None}
        none = {"usage": None} if usage else {}
        return _sent({**head, "object": "chat.completion.chunk", "choices": [choice], **none, **more})

    answer: Answer | None = None
    event: Event | None = first
    yield piece({"role": "assistant", "content": ""})
    try:
        async with aclosing(events):
            while event is not None:
                if isinstance(event, Token):
                    yield piece({"content": event.text})
                elif isinstance(event, Answer):
                    answer = event
                elif isinstance(event, Done) and answer is not None:
                    yield piece({}, event.ended, erv=verdict(version, answer, event))
                    if usage:
                        last = {**head, "object": "chat.completion.chunk", "choices": []}
                        yield _sent({**last, "usage": _usage(event)})
                elif isinstance(event, Error):
                    yield _sent(refused(event).as_dict())
                    return
                event = await anext(events, None)
    except ClientLeft:
        return
    except Refused as error:
        yield _sent(error.as_dict())
        return
    yield format_sse_event(data_str="[DONE]")


def _usage(done: Done) -> dict[str, int]:
    read, written = done.usage.prompt_tokens, done.usage.completion_tokens
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _sent(content: dict[str, Any]) -> bytes:
    return format_sse_event(data_str=json.dumps(content, ensure_ascii=False))
