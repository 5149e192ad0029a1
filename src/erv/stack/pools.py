"""Work pools of Prefect, one per clone: a worker takes the runs of its own clone alone.

A deployment names the pool of the clone that made it, and the pool names the folder in which its runs work.
So a run that waits in a pool works in the folder, with the code and the environment, of the worker there,
whoever has the deployment by then.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from erv.environment import Environment
from erv.files import sha256_of_text
from erv.stack.prefect_api import ask

KUBERNETES = "kubernetes"  # the type of a pool whose runs are Kubernetes jobs
FORMER = "erv"  # the one pool that all clones had in earlier versions
_LONGEST = 60  # characters of a folder in the name of its pool


def pool_of(workspace: Path, machine: str | None = None) -> str:
    """The name of a clone's pool, such as `erv-box-home-ann-erv-1f0c2d`; always the same.

    Args:
        workspace: the clone.
        machine: its name; by default that of this machine.
    """
    machine, folder = machine or platform.node(), str(workspace.resolve())
    # Two folders may differ only in what a name can't have.
    digest = sha256_of_text(f"{machine}:{folder}")[:6]
    return f"erv-{_plain(machine)}-{_plain(folder)[-_LONGEST:].strip('-')}-{digest}"


def read_pool(environment: Environment, name: str) -> dict[str, Any] | None:
    """What Prefect has of a pool; None if there is none.

    Raises:
        StackError: Prefect can't be reached or refuses.
    """
    found: dict[str, Any] | None = ask(environment, f"/work_pools/{quote(name, safe='')}", missing=True)
    return found


def folder_of(pool: Mapping[str, Any]) -> str | None:
    """Where the runs of a pool work; None if it is no clone's."""
    variables = (pool.get("base_job_template") or {}).get("variables") or {}
    folder = variables.get("properties", {}).get("working_dir", {}).get("default")
    return str(folder) if folder else None


def is_kubernetes(pool: Mapping[str, Any] | None) -> bool:
    """Whether the runs of a pool are Kubernetes jobs; not if there is no pool."""
    return pool is not None and pool.get("type") == KUBERNETES


def job_variables_of(pool: Mapping[str, Any]) -> frozenset[str]:
    """What can be set for a run of a pool."""
    variables = (pool.get("base_job_template") or {}).get("variables") or {}
    return frozenset(variables.get("properties") or {})


def worker_is_online(environment: Environment, name: str) -> bool:
    """Whether any worker serves the pool.

    Raises:
        StackError: Prefect can't be reached or refuses.
    """
    return workers_online(environment, name) > 0


def workers_online(environment: Environment, name: str) -> int:
    """How many workers serve the pool.

    Raises:
        StackError: Prefect can't be reached or refuses.
    """
    online = {"workers": {"status": {"any_": ["ONLINE"]}}}
    path = f"/work_pools/{quote(name, safe='')}/workers/filter"
    return len(ask(environment, path, online, missing=True) or [])


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")
