"""Whose the servers are: this workspace's own, or others' that a clone is connected to; and what to do."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection
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

SERVERS = tuple(_ADDRESS_OF)

# What is said of a server whose address is not known here.
_UNNAMED = {"S3": "Amazon S3", "MLflow": "your team's address", "Prefect": "your team's address"}

# Commands that bring the sample corpus.
MAKE_DATA, SAMPLE_UPLOAD = "make data", "erv sample-data --upload"

# The variables that say where objects go.
_STORE = ("ERV_S3_ENDPOINT", "ERV_RAW_BUCKET", "ERV_DVC_BUCKET", "ERV_ARTIFACT_BUCKET")

# Those that say which servers keep runs, versions and flow runs.
_SERVICES = ("ERV_MLFLOW_URI", "ERV_PREFECT_API_URL")

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


def unlike_our_servers(environment: Environment) -> dict[str, tuple[str, str]]:
    """The variables by which an environment names other servers than those that the clone uses.

    Those are the servers of its own stack, or those that it is connected to. A stack without an S3 goes with
    any server of others that it lacks. A clone with neither takes all.

    Returns:
        By name, the values in the environment and in the file that says what the clone uses; empty for
        Amazon's own address, and for what is not named there.

    Raises:
        SettingsError: that file is damaged.
    """
    root = environment.workspace
    connected = is_connected(root)
    written = _record(root, CONNECTED_FILE) if connected else _own_addresses(root)
    if not written:
        return {}
    whole = connected or _ADDRESS_OF["S3"] in written
    usual, used = Environment(root).variables(), environment.variables()
    stores = _STORE if whole and environment.has_storage else ()
    # A server that this process doesn't name is lacking at most.
    others = [name for name in _SERVICES if name in used and (whole or name in written)]
    pairs = {name: (used.get(name, ""), {**usual, **written}.get(name, "")) for name in (*stores, *others)}
    # Of an address with a password in it, nothing but its name is written down.
    unknown = {name for name in pairs if connected and name in written and not written[name]}
    return {
        name: pair
        for name, pair in pairs.items()
        if name not in unknown and pair[0].rstrip("/") != pair[1].rstrip("/")
    }


def lacking_remedy(environment: Environment, needed: Collection[str] = SERVERS) -> str | None:
    """Which servers this clone is connected to that this process doesn't name, and what to set.

    Args:
        environment: what is set.
        needed: the servers that count.

    Returns:
        A sentence; None if none is lacking, as where the clone is not connected.

    Raises:
        SettingsError: what `erv connect` has written is damaged.
    """
    lacking = {name: url for name, url in connected_servers(environment).items() if name in needed}
    if not lacking:
        return None
    where = ", ".join(f"{name} at {url}" for name, url in lacking.items())
    return (
        f"this clone is connected to {where}: set {_to_set(environment, lacking)} in this shell"
        " (`erv connect` lists all that it lacks)"
    )


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
    if lacking := lacking_remedy(environment, (server,)):
        return lacking
    if state == "connected" or (state == "neither" and shared):
        return f"set {_ADDRESS_OF[server]} and run `erv connect`"
    return own


def _to_set(environment: Environment, servers: Collection[str]) -> str:
    """The variables of servers that this shell lacks; whose value isn't written down, by name alone."""
    return " and ".join(
        f"{name}={shlex.quote(value)}" if value else name
        for name, value in unset_variables(environment).items()
        if name.startswith(tuple(_PREFIX_OF[server] for server in servers))
    )


def _own_addresses(workspace: Path) -> dict[str, str]:
    """What `stack.env` says, if the clone uses a stack of its own."""
    if is_connected(workspace):
        return {}
    return read_stack_file(written_file(workspace, STACK_FILE, os.environ))


def _record(workspace: Path, name: str) -> dict[str, str]:
    return read_stack_file(written_file(workspace, name, os.environ), "delete the file and run `erv connect`")
