"""The gate in front of our web servers: who may ask, from which page, and by which name.

MLflow's own login hashes a password for every request and keeps its users in one more database; Prefect asks
for its key, but answers by any name. Three checks in front of both make up for that:

- a server answers only by its own names, so a page that points a name of its own at this machine (DNS
  rebinding) is refused;
- a browser says which page asks, in the headers Origin and Sec-Fetch-Site; only pages of the server itself
  are answered, and links to it;
- MLflow asks for our key, as a bearer token (its clients) or as the password of any user (a browser).
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Collection
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.authentication import (
    AuthCredentials,
    AuthenticationBackend,
    AuthenticationError,
    BaseUser,
    SimpleUser,
)
from starlette.datastructures import Headers
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

# Says only that the server is there; whoever waits for the server has no key yet.
HEALTH = "/health"


def guarded(app: ASGIApp, hosts: Collection[str] = (), key: str | None = None) -> ASGIApp:
    """`app` behind the checks.

    Args:
        app: the server.
        hosts: the names it answers by, without ports; with none, it is left to `app` to check them.
        key: what every request except the health check must bring; None leaves that to `app`.

    Raises:
        ValueError: the key is empty, and everybody would be let in.
    """
    if key is not None:
        if not key:
            raise ValueError("the key of a server is empty")
        app = AuthenticationMiddleware(app, _OneKey(key), _refuse)
    app = OwnPagesOnly(app)
    return TrustedHostMiddleware(app, list(hosts), www_redirect=False) if hosts else app


class OwnPagesOnly:
    """Refuses requests and WebSockets that a page of another address makes a browser send."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers 403 to what a page of another address asks; a client that is no browser names no page."""
        if scope["type"] in ("http", "websocket") and _foreign(Headers(scope=scope)):
            await _forbid(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _foreign(headers: Headers) -> bool:
    origin = headers.get("origin")
    if origin is not None:
        try:
            return urlsplit(origin).netloc != headers.get("host")
        except ValueError:  # not an address, as in `http://[`
            return True
    # An image or a script of another page has no Origin, and the browser sends the key of MLflow with it.
    if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
        return False
    link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return not link


async def _forbid(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    response = PlainTextResponse("pages of other addresses are not answered", HTTPStatus.FORBIDDEN)
    await response(scope, receive, send)


class _OneKey(AuthenticationBackend):
    def __init__(self, key: str) -> None:
        self._key = key.encode()

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        if conn.scope["type"] == "http" and conn.scope["path"] == HEALTH:
            return None
        if not hmac.compare_digest(_brought(conn.headers.get("authorization", "")), self._key):
            raise AuthenticationError("a key is needed: see `erv stack key`")
        return AuthCredentials(["authenticated"]), SimpleUser("erv")


def _brought(header: str) -> bytes:
    """The key in an `Authorization` header; empty if there is none."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except ValueError:  # not base64, or not even ASCII
            return b""
    return b""


def _refuse(conn: HTTPConnection, error: AuthenticationError) -> Response:
    # The header makes a browser ask for the key, once.
    headers = {"WWW-Authenticate": 'Basic realm="MLflow of this workspace", charset="UTF-8"'}
    return PlainTextResponse(str(error), HTTPStatus.UNAUTHORIZED, headers)
