"""What is left in work pools other than this clone's, after the deployments have moved.

Prefect leaves a run that somebody has asked for in the pool for which it was made, also when its deployment
gets another pool. Only what a schedule has planned is dropped, and planned again in the new one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from erv.environment import Environment
from erv.stack.deployments import Deployed, listed
from erv.stack.pools import FORMER, folder_of, pool_of, read_pool, worker_is_online
from erv.stack.prefect_api import ask

_BEGUN = ("PENDING", "RUNNING", "PAUSED", "CANCELLING")
_WAITING = "SCHEDULED"
_PAGE = 200


@dataclass(frozen=True)
class Left:
    """Runs of our deployments in the pool of another clone, or of an earlier version.

    Attributes:
        pool: its name; empty if it was deleted.
        folder: where its runs work; None if it is no clone's.
        served: whether a worker serves it.
        waiting: ids of the runs that haven't begun.
        begun: how many have begun and not ended, the paused ones included.
        held: the deployments whose new runs wait for those.
    """

    pool: str
    folder: str | None
    served: bool
    waiting: tuple[str, ...]
    begun: int
    held: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """What becomes of them, in sentences."""
        if self.begun:
            held = f"; until then, new runs of {listed(self.held)} wait" if self.held else ""
            runs = "1 run has" if self.begun == 1 else f"{self.begun} runs have"
            yield f"{runs} begun in work pool {self.pool!r}: what has begun ends there{held}"
        if self.waiting:
            runs = "1 run waits" if len(self.waiting) == 1 else f"{len(self.waiting)} runs wait"
            yield f"{runs} in work pool {self.pool!r}: {self._future()}"

    def cancelled(self, count: int) -> str:
        """What `cancel` did, in a sentence.

        Args:
            count: what it returned.
        """
        where = f"in work pool {self.pool!r}"
        if len(self.waiting) > 1:
            return f"cancelled: {count} of {len(self.waiting)} runs that waited {where}"
        return (
            f"cancelled: the run that waited {where}"
            if count
            else f"not cancelled: the run {where} has begun"
        )

    def _future(self) -> str:
        one = len(self.waiting) == 1
        if self.folder is None:
            them = "it" if one else "them"
            return (
                f"the pool is no clone's, so no worker of this version takes {them}, and any other fails with"
                f" {them}"
            )
        worker = "whose worker is online" if self.served else "once a worker is started there"
        return f"{'it stays, and runs' if one else 'they stay, and run'} in {self.folder}, {worker}"


def left_elsewhere(environment: Environment, found: Sequence[Deployed]) -> list[Left]:
    """The runs of deployments that have not ended and are not in this clone's pool, by pool.

    Raises:
        StackError: Prefect can't be reached or refuses.
    """
    names = {one.id: one for one in found}
    pools: dict[str, list[Mapping[str, Any]]] = {}
    for run in _unfinished(environment, list(names)):
        pool = run.get("work_pool_name") or ""
        if pool != pool_of(environment.workspace):
            pools.setdefault(pool, []).append(run)
    return [_left(environment, pool, runs, names) for pool, runs in sorted(pools.items())]


def cancel(environment: Environment, left: Left) -> int:
    """Cancels the runs that wait; returns how many. One that has begun meanwhile stays.

    Raises:
        StackError: Prefect can't be reached or refuses.
    """
    count = 0
    for run in left.waiting:
        state = (ask(environment, f"/flow_runs/{run}").get("state") or {}).get("type")
        if state != _WAITING:
            continue
        message = "its deployment moved to another clone, and the waiting runs were to be cancelled"
        wanted = {"state": {"type": "CANCELLED", "name": "Cancelled", "message": message}}
        count += ask(environment, f"/flow_runs/{run}/set_state", wanted)["status"] == "ACCEPT"
    return count


def former_deployments(environment: Environment) -> list[str]:
    """Deployments that are still in the pool of earlier versions, as `flow/deployment`.

    Raises:
        StackError: Prefect can't be reached or refuses.
    """
    body = {"work_pools": {"name": {"any_": [FORMER]}}, "limit": _PAGE}
    found = ask(environment, "/deployments/filter", body)
    flows = {one["flow_id"] for one in found}
    names = {flow: ask(environment, f"/flows/{flow}")["name"] for flow in flows}
    return sorted(f"{names[one['flow_id']]}/{one['name']}" for one in found)


def former_note(environment: Environment) -> str | None:
    """What to know of the pool of earlier versions; None if it has no deployments.

    Raises:
        StackError: Prefect can't be reached or refuses.
    """
    if not (names := former_deployments(environment)):
        return None
    them = "it" if len(names) == 1 else "them"
    return (
        f"work pool {FORMER!r} of earlier versions still has {listed(names)}, and `erv run --worker` no"
        f" longer serves it: deploy {them} to {pool_of(environment.workspace)}, or serve the pool with"
        f" `prefect worker start --pool {FORMER}`"
    )


def _left(
    environment: Environment, pool: str, runs: Sequence[Mapping[str, Any]], names: Mapping[str, Deployed]
) -> Left:
    begun = [run for run in runs if run["state_type"] in _BEGUN]
    held = {names[run["deployment_id"]] for run in begun}
    return Left(
        pool,
        folder_of((read_pool(environment, pool) if pool else None) or {}),
        bool(pool) and worker_is_online(environment, pool),
        tuple(run["id"] for run in runs if run["state_type"] == _WAITING),
        len(begun),
        tuple(sorted(one.name for one in held if one.one_at_a_time)),
    )


def _unfinished(environment: Environment, deployments: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """The runs of deployments that have not ended."""
    if not deployments:
        return
    body: dict[str, Any] = {
        "deployments": {"id": {"any_": list(deployments)}},
        "flow_runs": {"state": {"type": {"any_": [_WAITING, *_BEGUN]}}},
        "sort": "ID_DESC",
        "limit": _PAGE,
    }
    offset = 0
    while page := ask(environment, "/flow_runs/filter", {**body, "offset": offset}):
        yield from page
        offset += len(page)
