"""Whose the servers are: this workspace's own, or others' that a clone is connected to; and what to do."""

from __future__ import annotations

import os
import shlex
from dataclasses import fields
from pathlib import Path
from urllib.parse import urlsplit

from erv.environment.environment import Environment, load_environment
from erv.environment.written import (
    CONNECTED_FILE,
    STACK_FILE,
    clone_state,
    is_connected,
    read_stack_file,
    written_file,
)

# The variable that names each server.
_ADDRESS_OF = {"S3": "ERV_S3_ENDPOINT", "MLflow": "ERV_MLFLOW_URI", "Prefect": "ERV_PREFECT_API_URL"}

# What is said of a server whose address is not known here.
_UNNAMED = {"S3": "Amazon S3", "MLflow": "your team's address", "Prefect": "your team's address"}

# Commands that bring the sample corpus.
MAKE_DATA, SAMPLE_UPLOAD = "make data", "erv sample-data --upload"

# The variables that say where objects go.
_STORE = ("ERV_S3_ENDPOINT", "ERV_RAW_BUCKET", "ERV_DVC_BUCKET", "ERV_ARTIFACT_BUCKET")

# How the names of each server's variables begin.
_PREFIX_OF = {"S3": "ERV_S3_", "MLflow": "ERV_MLFLOW_", "Prefect": "ERV_PREFECT_"}


def shared_servers(environment: Environment) -> tuple[str, ...]:
    """Which of S3, MLflow and Prefect are configured and not this workspace's own, in this order.

    Raises:
        SettingsError: `stack.env` is damaged.
    """
    written, used = _own_addresses(environment.workspace), environment.variables()
    foreign = {
        server
        for server, variable in _ADDRESS_OF.items()
        if variable in used and used[variable] != written.get(variable)
    }
    if environment.has_storage and not environment.s3_endpoint and "ERV_S3_ENDPOINT" not in written:
        foreign.add("S3")  # Amazon's own
    return tuple(server for server in _ADDRESS_OF if server in foreign)


def is_shared(server: str, workspace: str | Path = ".") -> bool:
    """Whether S3, MLflow or Prefect, as this process is told to use it, isn't the workspace's own."""
    return server in shared_servers(load_environment(workspace))


def connection_lines(environment: Environment) -> list[str]:
    """What `erv connect` writes down of the servers that it has found good.

    Of keys, and of addresses with a password in them, the names alone.
    """
    secret = {f"ERV_{item.name.upper()}" for item in fields(Environment) if not item.repr}
    usual = Environment(environment.workspace).variables()
    return [
        f"{name}={'' if name in secret or urlsplit(value).password else value}"
        for name, value in environment.variables().items()
        if usual.get(name) != value
    ]


def unset_variables(environment: Environment, record: str = CONNECTED_FILE) -> dict[str, str]:
    """The variables of the servers that this clone is connected to which are set nowhere now.

    Args:
        environment: what is set.
        record: the file of `.erv` that names the servers.

    Returns:
        Their values; keys, which only whoever runs the servers can tell, are empty.

    Raises:
        SettingsError: what `erv connect` has written is damaged.
    """
    known = _record(environment.workspace, record)
    usual = Environment(environment.workspace).variables()
    given = {name for name, value in environment.variables().items() if usual.get(name) != value}
    return {name: value for name, value in known.items() if name not in given}


def connected_servers(environment: Environment) -> dict[str, str]:
    """The servers that this clone is connected to and that nothing names now, with their addresses."""
    lacking = unset_variables(environment)
    servers = {
        server: lacking.get(_ADDRESS_OF[server])
        or environment.variables().get(_ADDRESS_OF[server])
        or _UNNAMED[server]
        for server, prefix in _PREFIX_OF.items()
        if _ADDRESS_OF[server] in lacking or (server == "S3" and any(n.startswith(prefix) for n in lacking))
    }
    if environment.has_storage:
        servers.pop("S3", None)
    return servers


def recorded_servers(workspace: str | Path = ".", record: str = CONNECTED_FILE) -> dict[str, str]:
    """The servers that a record of `erv connect` names, with their addresses; empty if there is none.

    Raises:
        SettingsError: the record is damaged.
    """
    known = _record(Path(workspace).resolve(), record)
    return {
        server: known.get(_ADDRESS_OF[server]) or _UNNAMED[server]
        for server in _ADDRESS_OF
        if _ADDRESS_OF[server] in known or (server == "S3" and known)
    }


def connected_store(workspace: str | Path = ".") -> tuple[str, str]:
    """Address and bucket of the store that `erv connect` pointed DVC's remote at.

    Raises:
        SettingsError: the record is damaged.
    """
    root = Path(workspace).resolve()
    known = _record(root, CONNECTED_FILE)
    address = known.get(_ADDRESS_OF["S3"]) or _UNNAMED["S3"]
    return address, known.get("ERV_DVC_BUCKET") or Environment(root).dvc_bucket


def unlike_our_store(environment: Environment) -> dict[str, str]:
    """The variables by which an environment names another store than that of the clone's own stack.

    Empty in a clone that has no S3 of its own: it is connected, or its stack is MLflow and Prefect alone.

    Returns:
        Their values in the environment, by name; empty for Amazon's own address.

    Raises:
        SettingsError: `stack.env` is damaged.
    """
    written = _own_addresses(environment.workspace)
    if _ADDRESS_OF["S3"] not in written:
        return {}
    own = {**Environment(environment.workspace).variables(), **written}
    used = environment.variables()
    return {name: used.get(name, "") for name in _STORE if used.get(name) != own.get(name)}


def named_like_our_own(environment: Environment) -> tuple[str, ...]:
    """The variables of an environment that name servers of this workspace's own, used or not.

    Raises:
        SettingsError: `stack.env` is damaged.
    """
    own, named = read_stack_file(environment.stack_file), environment.variables()
    return tuple(name for name in _ADDRESS_OF.values() if name in named and named[name] == own.get(name))


def sample_remedy(workspace: str | Path = ".", command: str = MAKE_DATA) -> str | None:
    """How the sample corpus gets to where it is missing; None where it would reach a bucket of others.

    Args:
        workspace: root of the repository.
        command: `make data`, or `erv sample-data --upload`, which doesn't pin it.
    """
    shared = clone_state(workspace) == "connected" or is_shared("S3", workspace)
    return None if shared else f"`{command}`"


def command_for(server: str, workspace: str | Path = ".") -> str:
    """The command that makes a server usable here, and delivers what waits for it.

    Where any server is shared, nothing is started that the user didn't ask for.
    """
    environment = load_environment(workspace)
    state = clone_state(environment.workspace)
    theirs = state == "connected" or (state == "neither" and shared_servers(environment))
    return "erv connect" if theirs else "erv stack up"


def remedy_for(server: str, workspace: str | Path = ".", own: str = "run `erv stack up`") -> str:
    """What to do about a server that is away or not named: `erv stack up` starts our own, but nobody else's.

    Args:
        server: S3, MLflow or Prefect.
        workspace: root of the repository.
        own: what to do about one of this workspace's own.
    """
    environment = load_environment(workspace)
    state, shared = clone_state(environment.workspace), shared_servers(environment)
    if server in shared:
        check = f"check {_ADDRESS_OF[server]} and the server"
        if state == "own stack":
            return f"{check}, or unset {_PREFIX_OF[server]}*: this clone has its own stack"
        return f"{check}, then run `erv connect`"
    if address := connected_servers(environment).get(server):
        needed = _to_set(environment, server)
        return (
            f"this clone is connected to {server} at {address}: set {needed} in this shell"
            " (`erv connect` lists all that it lacks)"
        )
    if state == "connected" or (state == "neither" and shared):
        return f"set {_ADDRESS_OF[server]} and run `erv connect`"
    return own


def _to_set(environment: Environment, server: str) -> str:
    """The variables of a server that this shell lacks; whose value isn't written down, by name alone."""
    return " and ".join(
        f"{name}={shlex.quote(value)}" if value else name
        for name, value in unset_variables(environment).items()
        if name.startswith(_PREFIX_OF[server])
    )


def _own_addresses(workspace: Path) -> dict[str, str]:
    """What `stack.env` says, if the clone uses a stack of its own."""
    if is_connected(workspace):
        return {}
    return read_stack_file(written_file(workspace, STACK_FILE, os.environ))


def _record(workspace: Path, name: str) -> dict[str, str]:
    return read_stack_file(written_file(workspace, name, os.environ), "delete the file and run `erv connect`")
