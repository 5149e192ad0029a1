"""What stands between the network and mlflow's scoring server when it serves our model.

`mlflow models serve` checks neither the Host header nor the size of a request, and answers a failure with its
stack trace. It has no setting for that, and no place for a middleware. But it loads the model before it makes
its FastAPI application: `guard_scoring_server`, which the model calls on loading, puts this guard around the
application. A model that finds itself in that server without the guard answers nothing
(`erv.register.serving_model`), so that another version of mlflow can't drop it unseen.

Hosts are checked by Starlette's `TrustedHostMiddleware`, sizes by its `RequestBodyLimitMiddleware`.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from erv.errors import RegistryError

logger = logging.getLogger(__name__)

HOSTS_VARIABLE = "ERV_SERVE_HOSTS"
LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]", "::1")
SIZE_VARIABLE = "ERV_SERVE_MAX_MB"
USUAL_MAX_MB = 1  # enough for names; whoever lets clips be sent needs memory for many times their size
SERVER_MODULE = "mlflow.pyfunc.scoring_server.app"
_LONGEST_LOG = 4000
_CSV, _JSON = b"text/csv", b"application/json"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

_SENTENCES = {
    413: f"the request is larger than this server takes; send fewer clips, or allow more in {SIZE_VARIABLE}",
    415: "send the table as application/json, text/csv or application/vnd.apache.parquet, in UTF-8",
    504: "the model took too long; ask for fewer clips",
}
NO_TABLE = (
    "the request is not a table with the columns clip or content, of texts;"
    ' send for example {"dataframe_records": [{"clip": "a.mp4"}]}'
)
_FAILED = "the model failed; the log of the server says why"


@dataclass
class Exchange:
    """What the model says about the request that it answers.

    Attributes:
        refusal: a sentence for the client, if the request can't be answered.
        failed: whether the model failed for a reason that is not the client's business.
        asked: whether the model was asked at all: what fails before is the request.
    """

    asked: bool = False
    refusal: str | None = None
    failed: bool = False


_EXCHANGE: ContextVar[Exchange | None] = ContextVar("exchange", default=None)


def current_exchange() -> Exchange | None:
    """The request that is being answered; None outside the guard."""
    return _EXCHANGE.get()


def in_scoring_server() -> bool:
    """Whether this process is mlflow's scoring server."""
    return SERVER_MODULE in sys.modules


def guard_scoring_server() -> None:
    """Puts the guard around the application that mlflow's scoring server makes once the model is loaded.

    Raises:
        RegistryError: as `most_bytes`.
    """
    import fastapi

    most_bytes()  # the application is built with the first request, which is too late to complain

    plain = fastapi.FastAPI

    class GuardedFastAPI(plain):  # type: ignore[misc, valid-type]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            fastapi.FastAPI = plain  # type: ignore[misc]
            # Its own pages would describe the server, and load scripts from elsewhere.
            super().__init__(*arguments, docs_url=None, redoc_url=None, openapi_url=None, **options)

        def build_middleware_stack(self) -> Any:
            return guarded(super().build_middleware_stack())

    fastapi.FastAPI = GuardedFastAPI  # type: ignore[misc]


def guarded(application: Application) -> Application:
    """An application behind the checks of host and size, and with clean answers."""
    from starlette.middleware.body_limit import RequestBodyLimitMiddleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    hosts = [host.strip() for host in os.environ.get(HOSTS_VARIABLE, "").split(",") if host.strip()]
    limited = RequestBodyLimitMiddleware(_read_first(application), max_body_size=most_bytes())
    return CleanAnswers(TrustedHostMiddleware(limited, [*LOCAL_HOSTS, *hosts], www_redirect=False))


def most_bytes(variables: Mapping[str, str] = os.environ) -> int:
    """The largest request in bytes, from `ERV_SERVE_MAX_MB` (2^20 bytes each).

    Raises:
        RegistryError: it is not a number above 0.
    """
    value = variables.get(SIZE_VARIABLE) or str(USUAL_MAX_MB)
    if not value.isdecimal() or int(value) == 0:
        raise RegistryError(f"{SIZE_VARIABLE} is {value!r}, not a whole number above 0")
    return int(value) << 20


def _read_first(application: Application) -> Application:
    """The application, called once the body is whole: in the middle of it, a limit would be a failure.

    mlflow reads no CSV for a model whose columns may hold anything, so it gets the same table as JSON.
    """

    async def call(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await application(scope, receive, send)
            return
        messages = [await receive()]
        while messages[-1].get("more_body"):
            messages.append(await receive())
        headers = dict(scope["headers"])
        kind, *parameters = headers.get(b"content-type", b"").split(b";")
        if kind.strip() == _CSV:
            body = _table_of(b"".join(message.get("body", b"") for message in messages))
            headers[b"content-type"] = b";".join([_JSON, *parameters])
            headers[b"content-length"] = str(len(body)).encode()
            scope = {**scope, "headers": list(headers.items())}
            messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return messages.pop(0) if messages else await receive()

        await application(scope, again, send)

    return call


def _table_of(csv: bytes) -> bytes:
    """A table in CSV, all of texts, as mlflow takes tables in JSON; empty if it is no table."""
    import pandas as pd

    try:
        table = pd.read_csv(io.BytesIO(csv), dtype=str)
    except ValueError:  # also what pandas and UTF-8 raise
        return b""
    return b'{"dataframe_split": %s}' % table.to_json(orient="split", index=False).encode()


class CleanAnswers:
    """Replaces the body of every answer that is an error by one sentence; the log keeps what it was."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        exchange = Exchange()
        if scope["method"] == "POST" and b"content-type" not in dict(scope["headers"]):
            await _answer(send, 415, b"", exchange)  # mlflow would fail
            return
        token = _EXCHANGE.set(exchange)
        status, body = 0, b""

        async def forward(message: Message) -> None:
            nonlocal status, body
            if message["type"] == "http.response.start":
                status = message["status"]
            if status < 400:
                await send(message)
            elif message["type"] == "http.response.body":
                body += message.get("body", b"")
                if not message.get("more_body"):
                    await _answer(send, status, body, exchange)

        try:
            await self._application(scope, receive, forward)
        finally:
            _EXCHANGE.reset(token)


async def _answer(send: Send, status: int, body: bytes, exchange: Exchange) -> None:
    if exchange.refusal is not None:
        status, sentence = 400, exchange.refusal
    elif status == 500 and not exchange.asked:
        # mlflow fails on what it can't parse: deep nesting, numbers of thousands of digits.
        status, sentence = 400, NO_TABLE
    elif exchange.failed or status >= 500:
        status, sentence = max(status, 500), _SENTENCES.get(status, _FAILED)
    elif body == b"Invalid host header":
        sentence = f"the Host header is not one of this server's; {HOSTS_VARIABLE} names more"
    else:
        sentence = _SENTENCES.get(status, NO_TABLE if status == 400 else "there is nothing here")
    logger.warning("answered %d: %s", status, sentence)
    if exchange.refusal is None:
        logger.info("instead of: %s", body[:_LONGEST_LOG].decode("utf-8", "replace"))
    content = json.dumps({"error_code": HTTPStatus(status).name, "message": sentence}).encode()
    length = str(len(content)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", length)]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
