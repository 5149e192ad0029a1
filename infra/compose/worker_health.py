"""Health check of the worker's container: exit code 0 while the Prefect server sees a worker online.

Command: `python worker_health.py [POOL]` in the worker's clone, with `ERV_PREFECT_API_URL` and, if the server
asks for it, `ERV_PREFECT_AUTH_STRING` set. By default it asks for the pool of that clone on this machine. A
worker that hangs sends no heartbeats and goes offline after a while; a check of its process would not notice.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import urllib.request
from pathlib import Path

from erv.stack.pools import pool_of

_CLIENT = "worker-health"


def online(api_url: str, pool: str, timeout: float = 10.0, auth_string: str = "") -> bool:
    """Whether the server at `api_url` (ends in `/api`) knows an online worker of `pool`.

    Raises:
        OSError: the server can't be reached, refuses the key, or does not know the pool.
    """
    api_url = api_url.rstrip("/")
    headers = {"Content-Type": "application/json"}
    if auth_string:
        headers["Authorization"] = f"Basic {base64.b64encode(auth_string.encode()).decode()}"
        # The query is a POST, so a server of ours wants a token with it.
        address = f"{api_url}/csrf-token?client={_CLIENT}"
        request = urllib.request.Request(address, headers=headers)  # noqa: S310 - the address is ours
        with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310
            headers |= {"Prefect-Csrf-Token": json.load(answer)["token"], "Prefect-Csrf-Client": _CLIENT}
    query = json.dumps({"workers": {"status": {"any_": ["ONLINE"]}}, "limit": 1}).encode()
    request = urllib.request.Request(  # noqa: S310 - the address is ours
        f"{api_url}/work_pools/{pool}/workers/filter",
        data=query,
        headers=headers,
    )
    with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310
        return bool(json.load(answer))


if __name__ == "__main__":
    found = online(
        os.environ["ERV_PREFECT_API_URL"],
        sys.argv[1] if len(sys.argv) > 1 else pool_of(Path.cwd()),
        auth_string=os.environ.get("ERV_PREFECT_AUTH_STRING", ""),
    )
    raise SystemExit(0 if found else "no worker of the pool is online")
