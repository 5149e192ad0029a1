"""The gate in front of our web servers: who may ask, from which page, and by which name.

MLflow's own login hashes a password for every request and keeps its users in one more database; Prefect asks
for its key, but answers by any name. Our own servers need the same three checks:

- a server answers only by its own names, so a page that points a name of its own at this machine (DNS
  rebinding) is refused;
- a browser says which page asks, in the headers Origin and Sec-Fetch-Site; only pages of the server itself
  are answered, and links to it;
- a key, as a bearer token (programs) or as the password of any user (a browser).
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable, Collection
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
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Says only that the server is there; whoever waits for the server has no key yet.
HEALTH = "/health"
# Makes the answer to what is refused: of a request, a status and a sentence.
Refusal = Callable[[HTTPConnection, int, str], Response]


def in_plain_text(_: HTTPConnection, status: int, sentence: str) -> Response:
    """A refusal that is the sentence alone."""
    return PlainTextResponse(sentence, status)


def guarded(
    app: ASGIApp,
    hosts: Collection[str] = (),
    key: str | Collection[str] | None = None,
    *,
    open_paths: Collection[str] = (HEALTH,),
    realm: str = "erv",
    remedy: str = "bring it as a bearer token or as a password",
    refusal: Refusal = in_plain_text,
) -> ASGIApp:
    """`app` behind the checks.

    Args:
        app: the server.
        hosts: the names it answers by, without ports; with none, it is left to `app` to check them.
        key: what every request must bring, except to `open_paths`, or several of which it must bring one;
            None leaves that to `app`. The user of a request is then called `key 1`, `key 2`, and so on.
        open_paths: exact paths that need no key.
        realm: what a browser says when it asks for the key.
        remedy: where the user finds the key; ends the sentence for requests without it.
        refusal: makes the answers 400, 401 and 403.

    Raises:
        ValueError: the key is empty, and everybody would be let in.
    """
    if key is not None:
        keys = [key] if isinstance(key, str) else list(key)
        if not keys or not all(keys):
            raise ValueError("the key of a server is empty")
        backend = _Keys(keys, frozenset(open_paths), f"a key is needed: {remedy}")
        app = AuthenticationMiddleware(app, backend, _asking(realm, refusal))
    app = OwnPagesOnly(app, refusal)
    return OwnNamesOnly(app, hosts, refusal) if hosts else app


class OwnNamesOnly:
    """Refuses requests and WebSockets whose Host header is none of our names.

    The check is Starlette's; what it answers is replaced.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], refusal: Refusal = in_plain_text) -> None:
        self._app, self._refusal = app, refusal
        self._check = TrustedHostMiddleware(_note, list(hosts), www_redirect=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers 400 to other names."""
        looked_at = {**scope, _PASSED: False}
        await self._check(looked_at, receive, _nowhere)
        if looked_at[_PASSED]:
            await self._app(scope, receive, send)
        else:
            sentence = "the Host header is not a name of this server"
            await _refuse(self._refusal, HTTPStatus.BAD_REQUEST, sentence, (scope, receive, send))


class OwnPagesOnly:
    """Refuses requests and WebSockets that a page of another address makes a browser send."""

    def __init__(self, app: ASGIApp, refusal: Refusal = in_plain_text) -> None:
        self._app, self._refusal = app, refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers 403 to what a page of another address asks; a client that is no browser names no page."""
        if scope["type"] in ("http", "websocket") and _foreign(Headers(scope=scope)):
            sentence = "cross-origin requests are refused"
            await _refuse(self._refusal, HTTPStatus.FORBIDDEN, sentence, (scope, receive, send))
            return
        await self._app(scope, receive, send)


_PASSED = "erv.web.host_is_ours"


async def _note(scope: Scope, _receive: Receive, _send: Send) -> None:
    scope[_PASSED] = True


async def _nowhere(_: Message) -> None:
    pass


def _foreign(headers: Headers) -> bool:
    origin = headers.get("origin")
    if origin is not None:
        try:
            return urlsplit(origin).netloc != headers.get("host")
        except ValueError:  # not an address, as in `http://[`
            return True
    # An image or a script of another page has no Origin, and the browser sends the key with it.
    if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
        return False
    link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return not link


async def _refuse(refusal: Refusal, status: int, sentence: str, request: tuple[Scope, Receive, Send]) -> None:
    scope, receive, send = request
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    await refusal(HTTPConnection(scope), status, sentence)(scope, receive, send)


class _Keys(AuthenticationBackend):
    def __init__(self, keys: Collection[str], open_paths: Collection[str], sentence: str) -> None:
        self._keys = [key.encode() for key in keys]
        self._open_paths, self._sentence = open_paths, sentence

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        if conn.scope["type"] == "http" and conn.scope["path"] in self._open_paths:
            return None
        brought = _brought(conn.headers.get("authorization", ""))
        # All are compared, so that the time doesn't tell which.
        fitting = [number for number, key in enumerate(self._keys, 1) if hmac.compare_digest(brought, key)]
        if not fitting:
            raise AuthenticationError(self._sentence)
        return AuthCredentials(["authenticated"]), SimpleUser(f"key {fitting[0]}")


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


def _asking(realm: str, refusal: Refusal) -> Callable[[HTTPConnection, AuthenticationError], Response]:
    def refuse(conn: HTTPConnection, error: AuthenticationError) -> Response:
        response = refusal(conn, HTTPStatus.UNAUTHORIZED, str(error))
        # Makes a browser ask for the key, once.
        response.headers["WWW-Authenticate"] = f'Basic realm="{realm}", charset="UTF-8"'
        return response

    return refuse
