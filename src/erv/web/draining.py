"""Lets a client send the rest of what is refused, so that it hears why."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Beyond these, the connection is closed in the middle. A client may then see a reset in place of the answer.
MOST_BYTES = 256 << 20
MOST_SECONDS = 10.0


class DrainedBodies:
    """Ends an answer only once the body of its request has come, and throws away what nobody read.

    A server that answers early, such as with 413, closes the connection afterwards. If the client is still
    sending, the kernel then resets it, and a client that reads only after it has sent never sees the answer.

    Args:
        app: the server.
        most_bytes: of what is thrown away.
        most_seconds: for that.
    """

    def __init__(
        self, app: ASGIApp, *, most_bytes: int = MOST_BYTES, most_seconds: float = MOST_SECONDS
    ) -> None:
        self._app, self._most_bytes, self._most_seconds = app, most_bytes, most_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http" or not _has_body(scope):
            await self._app(scope, receive, send)
            return
        coming = True

        async def received() -> Message:
            nonlocal coming
            message = await receive()
            coming = coming and message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def drain() -> None:
            taken = 0
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._most_seconds):
                    while coming and taken <= self._most_bytes:
                        taken += len((await received()).get("body", b""))

        async def answer(message: Message) -> None:
            if not (coming and message["type"] == "http.response.body" and not message.get("more_body")):
                await send(message)
                return
            await send({**message, "more_body": True})  # first, for a client that reads while it sends
            await drain()
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self._app(scope, received, answer)


def _has_body(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
