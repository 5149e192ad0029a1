"""How large a request may be. It is refused at its head, or as soon as it has sent too much."""

from __future__ import annotations

from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from erv.web.gate import Refusal


class LimitedBodies:
    """Answers 413 to requests with more than so many bytes.

    Starlette's `RequestBodyLimitMiddleware` counts what arrives. What says beforehand that it is too large is
    answered here, in our own words.

    Args:
        app: the server.
        most_bytes: of a body, above 0.
        refusal: makes the answer.
    """

    def __init__(self, app: ASGIApp, most_bytes: int, refusal: Refusal) -> None:
        if most_bytes <= 0:
            raise ValueError(f"most_bytes is {most_bytes}; it must be above 0")
        self._counting = RequestBodyLimitMiddleware(app, most_bytes)
        self._most_bytes, self._refusal = most_bytes, refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] == "http" and _announced(scope) > self._most_bytes:
            sentence = f"the request is larger than {_shown(self._most_bytes)}, the most that is taken here"
            answer = self._refusal(HTTPConnection(scope), HTTPStatus.REQUEST_ENTITY_TOO_LARGE, sentence)
            # The rest of the body would be read as the next request.
            answer.headers["Connection"] = "close"
            await answer(scope, receive, send)
            return
        await self._counting(scope, receive, send)


def _announced(scope: Scope) -> int:
    length = Headers(scope=scope).get("content-length", "")
    return int(length) if length.isdecimal() else 0


def _shown(most_bytes: int) -> str:
    return f"{most_bytes / (1 << 20):g} MiB" if most_bytes >= 1 << 20 else f"{most_bytes} bytes"
