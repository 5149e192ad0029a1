"""What a colleague needs to use the servers that this clone uses."""

from __future__ import annotations

import platform
import shlex
from dataclasses import replace
from urllib.parse import urlsplit

from erv.environment.environment import Environment


def lines_for_others(environment: Environment) -> list[str]:
    """Lines for a colleague's shell, with keys and without paths of this clone; `erv connect` needs no more.

    Comments say what holds for whoever gets them, and how another machine reaches servers that listen on this
    one alone. Empty if no server is named.
    """
    usual = Environment(environment.workspace).variables()
    given = {
        name: value
        for name, value in replace(environment, notify_url=None).variables().items()
        if usual.get(name) != value
    }
    if not given:
        return []
    lines = [
        "# Whoever has these lines can read, change and delete all that is on these servers, and run",
        "# commands as everybody who has a worker there.",
    ]
    ports = sorted(
        {
            port
            for url in (environment.s3_endpoint, environment.mlflow_uri, environment.prefect_api_url)
            if url and urlsplit(url).hostname in ("127.0.0.1", "localhost") and (port := urlsplit(url).port)
        }
    )
    if ports:
        tunnels = " ".join(f"-L {port}:127.0.0.1:{port}" for port in ports)
        here = f"YOU@{platform.node()}"
        lines += [
            "# The servers listen on this machine alone. On another one, leave this running first:",
            f"#   ssh -N {tunnels} {here}",
        ]
    return lines + [f"export {name}={shlex.quote(value)}" for name, value in sorted(given.items())]
