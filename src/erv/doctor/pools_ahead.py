"""The work pools that stages are placed in: whether Prefect has them, and whether a worker serves them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from erv.environment import Environment
from erv.errors import StackError

Served = Literal["served", "unserved", "missing", "unknown"]


@dataclass(frozen=True)
class PoolAhead:
    """A work pool that stages would be sent to.

    Attributes:
        name: the pool.
        stages: what would run there; empty if nobody asked what runs.
        state: whether a worker serves it, none does, there is no such pool, or Prefect can't be asked.
    """

    name: str
    stages: tuple[str, ...]
    state: Served

    @property
    def remedy(self) -> str:
        """What to start; empty if a worker serves the pool or nobody can tell."""
        if self.state in ("served", "unknown"):
            return ""
        return f"start `erv run --worker --pool {self.name}` on a machine that is to do it"

    @property
    def detail(self) -> str:
        """The state in words."""
        return {
            "served": "a worker serves it",
            "unserved": "no worker serves it",
            "missing": "Prefect has no such pool",
            "unknown": "Prefect can't be asked whether a worker serves it",
        }[self.state]


def look_at(environment: Environment, pools: Collection[str]) -> dict[str, Served]:
    """How each pool is served; `unknown` if Prefect is away or refuses, which others tell."""
    from erv.stack.pools import read_pool, worker_is_online
    from erv.stack.reach import unreachable

    url = environment.prefect_api_url
    if url is None or unreachable("Prefect", f"{url.rstrip('/')}/health", environment.workspace):
        return dict.fromkeys(pools, "unknown")
    found: dict[str, Served] = {}
    for name in sorted(pools):
        try:
            if read_pool(environment, name) is None:
                found[name] = "missing"
            else:
                found[name] = "served" if worker_is_online(environment, name) else "unserved"
        except StackError:
            found[name] = "unknown"
    return found
