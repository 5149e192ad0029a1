"""Health check of the worker's container: exit code 0 while the Prefect server sees a worker online.

Command: `python worker_health.py [POOL]` with `ERV_PREFECT_API_URL` set (standard library only). A worker
that hangs sends no heartbeats and goes offline after a while; a check of its process would not notice.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request


def online(api_url: str, pool: str, timeout: float = 10.0) -> bool:
    """Whether the server at `api_url` (ends in `/api`) knows an online worker of `pool`.

    Raises:
        OSError: the server can't be reached, or does not know the pool.
    """
    query = json.dumps({"workers": {"status": {"any_": ["ONLINE"]}}, "limit": 1}).encode()
    request = urllib.request.Request(  # noqa: S310 - the address is ours
        f"{api_url.rstrip('/')}/work_pools/{pool}/workers/filter",
        data=query,
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310
        return bool(json.load(answer))


if __name__ == "__main__":
    found = online(os.environ["ERV_PREFECT_API_URL"], sys.argv[1] if len(sys.argv) > 1 else "erv")
    raise SystemExit(0 if found else "no worker of the pool is online")
