"""Reads what clients send: JSON against a model, files in base64; what is wrong becomes one sentence."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
from http import HTTPStatus
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from erv.answering.question import HALVED, is_whole
from erv.web.errors import Refused

_Model = TypeVar("_Model", bound=BaseModel)

READ_SECONDS = 60.0  # for a body to arrive
_DATA_URI = re.compile(r"data:(?P<type>[^,]*),", re.IGNORECASE)


async def read_body(request: Request) -> bytes:
    """The body.

    Raises:
        Refused: 408, it did not arrive in time.
    """
    try:
        async with asyncio.timeout(READ_SECONDS):
            return await request.body()
    except TimeoutError:
        raise late() from None


def late() -> Refused:
    """The refusal of a body that doesn't arrive."""
    return Refused(408, f"the request did not arrive within {READ_SECONDS:g} s")


async def read_json(request: Request, model: type[_Model], otherwise: str = "") -> _Model:
    """The body as JSON of a model.

    Args:
        request: of the client.
        model: of the body.
        otherwise: what else is taken at this address, for whoever sends neither.

    Raises:
        Refused: 400, with the place that is wrong; 408, 415.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        wanted = f"JSON, with the Content-Type application/json{otherwise}"
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send {wanted}")
    body = await read_body(request)
    # A clip in base64 takes a while.
    return await asyncio.to_thread(_parsed, body, model)


def _parsed(body: bytes, model: type[_Model]) -> _Model:
    try:
        content = json.loads(body)
        _require_whole(content)
    except (ValueError, RecursionError):  # also what isn't UTF-8
        raise Refused(400, "the body is not JSON") from None
    return fitting(content, model)


def _require_whole(content: Any, place: str = "") -> None:
    """Refuses texts with half a character, which JSON can name and nothing that follows can write."""
    if isinstance(content, dict):
        for name, value in content.items():
            _require_whole(name, place)
            _require_whole(value, f"{place}.{name}".lstrip("."))
    elif isinstance(content, list):
        for number, value in enumerate(content):
            _require_whole(value, f"{place}[{number}]")
    elif isinstance(content, str) and not is_whole(content):
        said = f"{place}: has {HALVED}" if place else f"the body has {HALVED}"
        raise Refused(400, said, param=place or None)


def fitting(content: Any, model: type[_Model]) -> _Model:
    """What was sent, as a model; raises Refused with the first fault."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise _refused(first["loc"], first["type"], first["msg"], model) from None


def _refused(place: tuple[int | str, ...], kind: str, message: str, model: type[BaseModel]) -> Refused:
    # Names of variants of a union stand among the places.
    param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
    said = message.removeprefix("Value error, ")
    if kind == "missing":
        said = "is missing"
    if kind == "extra_forbidden":
        said = "there is no such field here"
        if len(place) == 1:
            said += f"; there are {', '.join(model.model_fields)}"
    return Refused(400, f"{param}: {said}" if param else said, param=param or None)


def file_in(text: str, param: str) -> bytes:
    """A file in base64, also as a `data:` URI and with line breaks.

    Raises:
        Refused: 400, it is no base64, or empty.
    """
    if head := _DATA_URI.match(text):
        if not head["type"].lower().endswith(";base64"):
            raise Refused(400, f"{param}: the data: URI is not in base64", param=param)
        text = text[head.end() :]
    try:
        content = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Refused(400, f"{param}: not in base64", param=param) from None
    if not content:
        raise Refused(400, f"{param}: the file is empty", param=param)
    return content


def is_data_uri(text: str) -> bool:
    """Whether a URI holds the file itself."""
    return _DATA_URI.match(text) is not None
