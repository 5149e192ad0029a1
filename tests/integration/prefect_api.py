"""Requests to the stack's Prefect server as its own page sends them: with the key and a CSRF token."""

from __future__ import annotations

import json
import urllib.request
from typing import Any
from urllib.error import HTTPError

from funcy import retry

from erv.environment import Environment

CLIENT = "erv-tests"


# Prefect's database may be busy for a moment; its own client asks again, too.
@retry(10, errors=HTTPError, timeout=1, filter_errors=lambda error: error.code == 503)
def ask(environment: Environment, path: str, body: object = None) -> Any:
    """The answer to a GET, or to a POST of `body`."""
    headers = dict(environment.prefect_headers)
    data = None
    if body is not None:
        token = ask(environment, f"/csrf-token?client={CLIENT}")["token"]
        headers |= {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": CLIENT}
        headers["Content-Type"] = "application/json"
        data = json.dumps(body).encode()
    request = urllib.request.Request(f"{environment.prefect_api_url}{path}", data, headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)
