"""Requests to a Prefect server where Prefect's own client would be too much to import."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from typing import Any

from erv.environment import Environment, remedy_for
from erv.errors import StackError

# As long as Prefect's own client waits: on SQLite a request may have to wait for other writers, which it does
# for up to a minute on a server with much to do.
_TIMEOUT_SECONDS = 60.0
# A busy server, such as one on SQLite with many clients, says so and does nothing. Prefect's own client asks
# again then, too.
_BUSY = (429, 502, 503)
_TIMES = 5
_NO_CSRF = (404, 422)  # what a server answers that asks for no token, as Prefect's own client has it


def ask(
    environment: Environment,
    path: str,
    body: object = None,
    *,
    about: str = "",
    missing: bool = False,
    method: str | None = None,
) -> Any:
    """The answer to a GET, or to a POST of `body`.

    Args:
        environment: where Prefect is, with its key.
        path: below the address of the API, such as `/work_pools/erv`.
        body: JSON.
        about: what is asked, for the message of an error; by default the path.
        missing: whether there may be no such thing.
        method: in place of GET or POST, such as PATCH.

    Returns:
        JSON, or None if the answer is empty or what may be missing is.

    Raises:
        StackError: Prefect can't be reached or refuses.
    """
    url = (environment.prefect_api_url or "").rstrip("/")
    try:
        headers = dict(environment.prefect_headers)
        if body is not None:
            headers |= _csrf_headers(environment, url)
        content = _send(f"{url}{path}", headers, body, method)
        return json.loads(content) if content else None
    except urllib.error.HTTPError as error:
        if missing and error.code == 404:
            return None
        remedy = remedy_for("Prefect", environment.workspace, own="see `erv stack status`")
        raise StackError(f"Prefect at {url} answers {error.code} to {about or path}; {remedy}") from error
    except (OSError, ValueError) as error:
        remedy = remedy_for("Prefect", environment.workspace)
        raise StackError(f"Prefect at {url} can't be reached ({error}); {remedy}") from error


def _csrf_headers(environment: Environment, url: str) -> dict[str, str]:
    # Of each request its own: a new token for a name ends the one before, which somebody may be about to use.
    client = f"erv-{uuid.uuid4()}"
    try:
        answer = _send(f"{url}/csrf-token?client={client}", environment.prefect_headers)
    except urllib.error.HTTPError as error:
        if error.code in _NO_CSRF:
            return {}
        raise
    return {"Prefect-Csrf-Token": json.loads(answer)["token"], "Prefect-Csrf-Client": client}


def _send(url: str, headers: Mapping[str, str], body: object = None, method: str | None = None) -> bytes:
    from funcy import retry

    again = retry(
        _TIMES,
        errors=urllib.error.HTTPError,
        timeout=lambda attempt: 2.0**attempt / 4,
        filter_errors=lambda error: error.code in _BUSY,
    )
    sent: bytes = again(_send_once)(url, headers, body, method)
    return sent


def _send_once(url: str, headers: Mapping[str, str], body: object = None, method: str | None = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    sent = dict(headers) if data is None else {**headers, "Content-Type": "application/json"}
    request = urllib.request.Request(url, data, sent, method=method)  # noqa: S310
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310
        content: bytes = answer.read()
        return content
