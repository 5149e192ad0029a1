"""Whose the servers are: this workspace's own, or others' that a clone is connected to; and what to do."""

from __future__ import annotations

import os
import shlex
from dataclasses import fields
from pathlib import Path
from urllib.parse import urlsplit

from erv.environment.environment import (
    CONNECTED_FILE,
    Environment,
    load_environment,
    read_stack_file,
    written_file,
)

# The variable that names each server.
_ADDRESS_OF = {"S3": "ERV_S3_ENDPOINT", "MLflow": "ERV_MLFLOW_URI", "Prefect": "ERV_PREFECT_API_URL"}

# What is said of a server whose address is not known here.
_UNNAMED = {"S3": "Amazon S3", "MLflow": "your team's address", "Prefect": "your team's address"}

# How the names of each server's variables begin.
_PREFIX_OF = {"S3": "ERV_S3_", "MLflow": "ERV_MLFLOW_", "Prefect": "ERV_PREFECT_"}


def shared_servers(environment: Environment) -> tuple[str, ...]:
    """Which of S3, MLflow and Prefect are configured and not this workspace's own, in this order.

    Raises:
        SettingsError: `stack.env` is damaged.
    """
    written, used = read_stack_file(environment.stack_file), environment.variables()
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


def unset_variables(environment: Environment) -> dict[str, str]:
    """The variables of the servers that this clone is connected to which are set nowhere now.

    Returns:
        Their values; keys, which only whoever runs the servers can tell, are empty.

    Raises:
        SettingsError: what `erv connect` has written is damaged.
    """
    file = written_file(environment.workspace, CONNECTED_FILE, os.environ)
    known = read_stack_file(file, "delete the file and run `erv connect`")
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


def command_for(server: str, workspace: str | Path = ".") -> str:
    """The command that makes a server usable here, and delivers what waits for it.

    Where any server is shared, nothing is started that the user didn't ask for.
    """
    environment = load_environment(workspace)
    theirs = shared_servers(environment) or connected_servers(environment)
    return "erv connect" if theirs and not _is_own(server, workspace) else "erv stack up"


def remedy_for(server: str, workspace: str | Path = ".", own: str = "run `erv stack up`") -> str:
    """What to do about a server that is away or not named: `erv stack up` starts our own, but nobody else's.

    Args:
        server: S3, MLflow or Prefect.
        workspace: root of the repository.
        own: what to do about one of this workspace's own.
    """
    environment = load_environment(workspace)
    shared = shared_servers(environment)
    if server in shared:
        return f"check {_ADDRESS_OF[server]} and the server, then run `erv connect`"
    if address := connected_servers(environment).get(server):
        needed = _to_set(environment, server)
        return (
            f"this clone is connected to {server} at {address}: set {needed} in this shell"
            " (`erv connect` lists all that it lacks)"
        )
    if shared and not _is_own(server, workspace):
        return f"set {_ADDRESS_OF[server]} and run `erv connect`"
    return own


def _to_set(environment: Environment, server: str) -> str:
    """The variables of a server that this shell lacks; whose value isn't written down, by name alone."""
    return " and ".join(
        f"{name}={shlex.quote(value)}" if value else name
        for name, value in unset_variables(environment).items()
        if name.startswith(_PREFIX_OF[server])
    )


def _is_own(server: str, workspace: str | Path) -> bool:
    environment = load_environment(workspace)
    address = read_stack_file(environment.stack_file).get(_ADDRESS_OF[server])
    return address is not None and environment.variables().get(_ADDRESS_OF[server]) == address
