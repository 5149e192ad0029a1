"""What a client is told when a request fails: one sentence, as JSON or as a page.

Never a stack trace, nor a path of this machine; the log has those. The JSON has the shape of OpenAI's errors,
which its clients turn into exceptions: `{"error": {"message", "type", "param", "code"}}`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response

from erv.web.pages import Pages

logger = logging.getLogger(__name__)

FAILED = "the server failed at this request; its log says why"
_SENTENCES = {
    400: "the request can't be read",
    401: "a key is needed",
    403: "this is not allowed",
    404: "there is nothing here",
    405: "this address doesn't take requests of that method",
    413: "the request is larger than this server takes",
    415: "this address doesn't take content of that type",
}
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_PAGES = Pages()


class Refused(HTTPException):
    """A request that is not answered, for a reason that the client may know.

    Args:
        status: from 400 on.
        sentence: says what was wrong, what was expected and what to do.
        param: the part of the request that is at fault, such as `messages[0].content`.
        code: a name for programs, such as `queue_full`.
        headers: of the answer, such as `Retry-After`.
    """

    def __init__(
        self,
        status: int,
        sentence: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, sentence, headers)
        self.param, self.code = param, code

    def as_dict(self) -> dict[str, dict[str, str | None]]:
        """The error as it is sent."""
        return _content(self.status_code, self.detail, self.param, self.code)


def refusal(conn: HTTPConnection, status: int, sentence: str) -> Response:
    """The answer to a request that is refused: a page for a browser that opens one, and else JSON."""
    if wants_page(conn):
        title = HTTPStatus(status).phrase
        return _PAGES.page("web/error.html.j2", status=status, number=status, title=title, sentence=sentence)
    return JSONResponse(_content(status, sentence), status)


def answer_refused(conn: HTTPConnection, error: Refused) -> Response:
    """The answer that a `Refused` becomes."""
    if wants_page(conn):
        response = refusal(conn, error.status_code, error.detail)
    else:
        response = JSONResponse(error.as_dict(), error.status_code)
    response.headers.update(error.headers or {})
    return response


def wants_page(conn: HTTPConnection) -> bool:
    """Whether a browser opens the address, rather than a script or a program."""
    opens = conn.headers.get("sec-fetch-mode", "navigate") == "navigate"
    return opens and "text/html" in conn.headers.get("accept", "")


def answer_errors(app: Starlette) -> None:
    """Makes an application (Starlette or FastAPI) answer its errors in this way.

    A `Refused` tells its sentence. Other exceptions tell none of theirs: what goes wrong inside is a 500 and
    stands in the log, with its stack trace.
    """
    from fastapi.exceptions import RequestValidationError

    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_wrong_content)
    app.add_exception_handler(Exception, _on_failure)


async def _on_http(request: Request, error: Exception) -> Response:
    if isinstance(error, Refused):
        return answer_refused(request, error)
    elif isinstance(error, HTTPException):  # Starlette's own, whose details are single words
        sentence = _SENTENCES.get(error.status_code, HTTPStatus(error.status_code).phrase)
        response = refusal(request, error.status_code, sentence)
    else:
        raise error
    response.headers.update(error.headers or {})
    return response


async def _on_wrong_content(request: Request, error: Exception) -> Response:
    """The first fault that FastAPI found in a request, named by its place."""
    first = error.errors()[0]  # type: ignore[attr-defined]
    # The first part says where it was sent (body, query, path).
    param = ".".join(str(part) for part in first["loc"][1:]) or None
    sentence = first["msg"] if param is None else f"{param}: {first['msg']}"
    if first["type"] == "json_invalid":
        param, sentence = None, f"the body is not JSON: {first.get('ctx', {}).get('error', 'it is cut off')}"
    return JSONResponse(Refused(400, sentence, param=param).as_dict(), HTTPStatus.BAD_REQUEST)


async def _on_failure(request: Request, error: Exception) -> Response:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return refusal(request, HTTPStatus.INTERNAL_SERVER_ERROR, FAILED)


def _content(
    status: int, sentence: str, param: str | None = None, code: str | None = None
) -> dict[str, dict[str, str | None]]:
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": sentence, "type": kind, "param": param, "code": code}}
