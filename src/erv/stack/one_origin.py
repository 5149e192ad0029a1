"""Keeps a clone to servers of one origin: its own stack, or those that it is connected to.

A version in a team's registry whose outputs lie in a private store can't be verified by anybody else, and a
shell with the variables of another clone would change that one's champion. A clone with neither a stack nor a
connection takes whatever its `ERV_*` variables name, as in CI and containers.
"""

from __future__ import annotations

from collections.abc import Collection

from erv.environment import (
    CONNECTED_FILE,
    SERVERS,
    STACK_FILE,
    STATE,
    Environment,
    clone_state,
    lacking_remedy,
    unlike_our_servers,
)
from erv.errors import StackError


def check_servers(environment: Environment, needed: Collection[str] = SERVERS) -> None:
    """Refuses servers that this clone doesn't use, and to go on without some that it does.

    Args:
        environment: with the servers that this process names.
        needed: those of S3, MLflow and Prefect without which the caller can't do its work.

    Raises:
        StackError: this process names others than the clone's own stack has, or than it is connected to; or
            it is connected, and this process lacks the variables of one that is needed.
        SettingsError: what is written down about them is damaged.
    """
    if fault := server_fault(environment, needed):
        raise StackError(fault)


def server_fault(environment: Environment, needed: Collection[str] = SERVERS) -> str | None:
    """The same as a sentence; None if there is nothing to refuse."""
    return _other_origin(environment) or lacking_remedy(environment, needed)


def _other_origin(environment: Environment) -> str | None:
    unlike = unlike_our_servers(environment)
    if not unlike:
        return None
    connected = clone_state(environment.workspace) == "connected"
    file = f"{STATE}/{CONNECTED_FILE if connected else STACK_FILE}"
    pairs = [
        f"{name} is {used or 'not set'}, there {ours or 'not set'}" for name, (used, ours) in unlike.items()
    ]
    said = environment.mask("; ".join(pairs))
    names = " ".join(unlike)
    if connected:
        return (
            f"this clone is connected to the servers in {file}, but this shell names others: {said}; set"
            f" {names} as there, or run `erv connect` to change to those"
        )
    return (
        f"this clone uses its own stack, in {file}, but this shell names other servers: {said}; unset {names}"
        " where this was started, or run `erv connect` to use servers of others"
    )
