"""When a clone may change between a stack of its own and servers of others, and what it is told.

A clone is in exactly one state (`erv.environment.clone_state`). `erv connect` and `erv stack up --own` change
it. Both refuse where something would be lost or reach the wrong server: while servers of its own run, or
while runs wait for the MLflow that it leaves. `erv.stack.one_origin` keeps commands to the servers of
that state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from erv.environment import (
    Environment,
    clone_state,
    load_environment,
    named_environment,
    named_like_our_own,
    own_environment,
    recorded_servers,
    shared_servers,
)
from erv.errors import StackError


def check_connecting(environment: Environment, running: Sequence[str]) -> None:
    """Refuses to connect a clone whose own stack runs, or in which runs wait for another MLflow.

    Args:
        environment: the servers to connect to.
        running: names of the servers of the clone's own that run.

    Raises:
        StackError: see above, or they are the clone's own.
    """
    if own := named_like_our_own(environment):
        raise StackError(
            f"the servers that {', '.join(own)} name in this shell are this clone's own, and `erv connect` is"
            " for those of others; set what your team gave you"
        )
    if running:
        raise StackError(
            f"this clone's own stack is running ({', '.join(running)}); `erv stack down` stops it and keeps"
            " what it has stored, then run `erv connect` again"
        )
    state = clone_state(environment.workspace)
    if state == "own stack":
        _refuse_waiting(environment, "this clone's own MLflow", "`erv stack up` delivers them")
    before = recorded_servers(environment.workspace).get("MLflow")
    if before is not None and before != environment.mlflow_uri:
        remedy = f"`erv connect` with ERV_MLFLOW_URI={before} delivers them"
        _refuse_waiting(environment, f"MLflow at {before}", remedy)


def left_by_connecting(environment: Environment) -> list[str]:
    """A sentence on the servers that a clone used until now, if `erv connect` changes that.

    Args:
        environment: the servers to connect to.
    """
    if clone_state(environment.workspace) == "own stack":
        return [
            "this clone used its own stack; it now uses the servers above, and its own stack is kept in"
            " .erv/stack (`erv stack up --own` returns to it)"
        ]
    before = recorded_servers(environment.workspace)
    named = {environment.s3_endpoint or "Amazon S3", environment.mlflow_uri, environment.prefect_api_url}
    if set(before.values()) <= named:
        return []
    return [f"this clone was connected to {servers_text(before)}; it now uses the servers above"]


def check_starting(workspace: Path, names: Sequence[str], own: bool) -> None:
    """Refuses to start a stack that would take the place of servers of others, unless that was asked for.

    Args:
        workspace: root of the repository.
        names: the servers to start.
        own: whether a stack of its own was asked for.

    Raises:
        StackError: see above, only a part of the stack was asked for, or runs wait for the team's MLflow.
    """
    from erv.stack.services import SERVICES

    if clone_state(workspace) == "connected":
        servers = recorded_servers(workspace)
        if not own:
            raise StackError(
                f"this clone is connected to {servers_text(servers)}; `erv stack up --own` gives it a stack"
                " of its own in their place, to which DVC's remote would point, too (`erv connect` returns to"
                " them)"
            )
        if not set(SERVICES) <= set(names):
            raise StackError(
                f"this clone is connected to {servers_text(servers)}, so a part of its own stack can't be"
                " used; `erv stack up --own` without names starts all of it"
            )
        where = f"MLflow at {servers.get('MLflow', 'the address that your team gave you')}"
        _refuse_waiting(own_environment(workspace), where, "`erv connect` delivers them")
    elif clone_state(workspace) == "neither" and not own:
        environment = load_environment(workspace)
        if "S3" in shared_servers(environment):
            raise StackError(
                f"this shell's ERV_S3_* variables name {environment.s3_endpoint or 'Amazon S3'}, which is not"
                " this clone's own; run `erv connect` to use it, or unset them to start a stack of its own"
                " (`erv stack up --own` starts one all the same)"
            )


def overriding_variables(workspace: str | Path = ".") -> tuple[str, ...]:
    """The variables of this process that name other servers than the clone's own, and so override it."""
    own, named = own_environment(workspace).variables(), named_environment(workspace).variables()
    addresses = ("ERV_S3_ENDPOINT", "ERV_MLFLOW_URI", "ERV_PREFECT_API_URL")
    return tuple(name for name in addresses if name in named and named[name] != own.get(name))


def servers_text(servers: Mapping[str, str]) -> str:
    """`S3 at ADDRESS, MLflow at ADDRESS`."""
    return ", ".join(f"{name} at {address}" for name, address in servers.items())


def _refuse_waiting(environment: Environment, server: str, remedy: str) -> None:
    from erv.tracking.delivery import waiting

    if count := waiting(environment):
        runs = "1 run of a finished stage waits" if count == 1 else f"{count} runs of finished stages wait"
        raise StackError(
            f"{runs} in .erv/spool for {server}, and would reach another; {remedy} (or move .erv/spool"
            " elsewhere to go on without them)"
        )
