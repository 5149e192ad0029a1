"""Events for Prefect, which its automations react to: who is told of them is set up there."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from erv.environment import Environment, remedy_for
from erv.errors import StackError

_CLIENT = "erv"  # the name that a CSRF token is made for
_TIMEOUT_SECONDS = 10.0
_NO_CSRF = (404, 422)  # what a server answers that asks for no token, as Prefect's own client has it


def emit(
    environment: Environment, event: str, resource: Mapping[str, str], payload: Mapping[str, Any]
) -> None:
    """Sends an event to Prefect.

    Args:
        environment: where Prefect is; nothing is sent without a server.
        event: what happened, such as `erv.champion`.
        resource: labels of what it happened to; `prefect.resource.id` is required.
        payload: what else there is to say; JSON.

    Raises:
        StackError: Prefect can't be reached or refuses.
    """
    if not environment.prefect_api_url:
        return
    occurred = datetime.now(UTC).isoformat()
    content = {
        "id": str(uuid.uuid4()),
        "occurred": occurred,
        "event": event,
        "resource": dict(resource),
        "related": [],
        "payload": dict(payload),
    }
    url = environment.prefect_api_url.rstrip("/")
    try:
        headers = {**environment.prefect_headers, **_csrf_headers(environment, url)}
        _ask(f"{url}/events", headers, [content])
    except urllib.error.HTTPError as error:
        raise StackError(f"Prefect at {url} answers {error.code} to an event ({event})") from error
    except (OSError, ValueError) as error:
        raise StackError(f"Prefect at {url} can't be reached ({error}); {remedy_for('Prefect')}") from error


def _csrf_headers(environment: Environment, url: str) -> dict[str, str]:
    try:
        answer = _ask(f"{url}/csrf-token?client={_CLIENT}", environment.prefect_headers)
    except urllib.error.HTTPError as error:
        if error.code in _NO_CSRF:
            return {}
        raise
    return {"Prefect-Csrf-Token": json.loads(answer)["token"], "Prefect-Csrf-Client": _CLIENT}


def _ask(url: str, headers: Mapping[str, str], body: object = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    sent = dict(headers) if data is None else {**headers, "Content-Type": "application/json"}
    request = urllib.request.Request(url, data, sent)  # noqa: S310
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310
        content: bytes = answer.read()
        return content
