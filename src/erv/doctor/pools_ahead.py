"""The work pools that stages are placed in: whether Prefect has them, and whether a worker serves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        workers: how many serve it; None if nobody can tell.
    """

    name: str
    stages: tuple[str, ...]
    state: Served
    workers: int | None

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
            "served": "one worker serves it" if self.workers == 1 else f"{self.workers} workers serve it",
            "unserved": "no worker serves it",
            "missing": "Prefect has no such pool",
            "unknown": "Prefect can't be asked whether a worker serves it",
        }[self.state]


def look_at(environment: Environment, sent: Mapping[str, Sequence[str]]) -> tuple[PoolAhead, ...]:
    """How each pool is served; `unknown` if Prefect is away or refuses, which others tell.

    Args:
        environment: where Prefect is.
        sent: the stages that would be sent to each pool.
    """
    from erv.stack.reach import unreachable

    if not sent:
        return ()
    url = environment.prefect_api_url
    away = url is None or unreachable("Prefect", f"{url.rstrip('/')}/health", environment.workspace)
    return tuple(
        PoolAhead(name, tuple(stages), *(("unknown", None) if away else _served(environment, name)))
        for name, stages in sent.items()
    )


def _served(environment: Environment, name: str) -> tuple[Served, int | None]:
    from erv.stack.pools import read_pool, workers_online

    try:
        if read_pool(environment, name) is None:
            return "missing", 0
        workers = workers_online(environment, name)
    except StackError:
        return "unknown", None
    return ("served" if workers else "unserved"), workers
