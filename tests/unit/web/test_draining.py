"""A client that is still sending hears why it is refused; on a real server."""

from __future__ import annotations

import asyncio
import http.client
import socket
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import urlsplit

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Message

from erv.web.draining import DrainedBodies
from tests.support.websites import local_site, website

KEY = {"Authorization": "Bearer a key of sixteen or more"}
LARGE = bytes(32 << 20)  # more than the buffers of a connection hold


async def early(request: Request) -> PlainTextResponse:
    return PlainTextResponse("no place", 429, {"Connection": "close"})


async def whole(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    app = Starlette(routes=[Route("/early", early, methods=["POST"]), Route("/", whole, methods=["POST"])])
    with website(local_site(app, most_bytes=64 << 20, key="a key of sixteen or more")) as address:
        yield address


@pytest.fixture(scope="module")
def small() -> Iterator[str]:
    app = Starlette(routes=[Route("/", whole, methods=["POST"])])
    with website(local_site(app)) as address:
        yield address


def post(
    address: str, content: bytes | Iterable[bytes], headers: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Sends all of a body before it looks for an answer, as simple clients do."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    try:
        connection.request("POST", urlsplit(address).path or "/", content, dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize("kind", ["announced", "in chunks"])
def test_a_body_that_is_too_large(small: str, kind: str) -> None:
    content = LARGE if kind == "announced" else (bytes(1 << 20) for _ in range(32))
    status, text = post(small, content)
    assert status == 413
    assert "the most that is taken here" in text or kind == "in chunks"


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/early", KEY, 429),
        ("/", {}, 401),
        ("/", {**KEY, "Origin": "http://elsewhere.example"}, 403),
        ("/none", KEY, 404),
        ("/", KEY, 200),
    ],
)
def test_whatever_is_answered_before_the_body_has_come(
    address: str, path: str, headers: dict[str, str], status: int
) -> None:
    assert post(address + path, LARGE, headers)[0] == status


def test_a_client_that_waits_for_leave_to_send(small: str) -> None:
    """It is refused at once: it has not begun."""
    place = urlsplit(small)
    assert place.hostname is not None
    with socket.create_connection((place.hostname, place.port or 0), timeout=5) as connection:
        connection.sendall(
            f"POST / HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Length: {len(LARGE)}\r\n"
            "Expect: 100-continue\r\n\r\n".encode()
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")


def test_a_client_that_never_ends_is_left() -> None:
    """By time and by bytes, and its answer is sent first."""
    sent: list[Message] = []

    async def app(_scope: object, _receive: object, send: object) -> None:
        await PlainTextResponse("no", 413)(scope, endless, send)  # type: ignore[arg-type]

    async def endless() -> Message:
        await asyncio.sleep(0)
        return {"type": "http.request", "body": bytes(1000), "more_body": True}

    async def silent() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def note(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "headers": [(b"content-length", b"9")]}
    for receive, most in ((endless, {"most_bytes": 5000}), (silent, {"most_seconds": 0.1})):
        sent.clear()
        asyncio.run(DrainedBodies(app, **most)(scope, receive, note))  # type: ignore[arg-type]
        assert [one.get("more_body") for one in sent] == [None, True, False]
        assert b"".join(one.get("body", b"") for one in sent) == b"no"
