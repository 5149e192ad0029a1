"""Whose servers the clone and this shell use: its own stack, or those of others."""

from __future__ import annotations

import os
from collections.abc import Iterator

from erv.doctor.finding import Finding, State, some
from erv.environment import (
    CONNECTED_FILE,
    STACK_FILE,
    Environment,
    clone_state,
    command_for,
    connected_servers,
    read_stack_file,
    remedy_for,
    shared_servers,
    unlike_our_servers,
)


def variables(environment: Environment) -> Iterator[Finding]:
    """Where this shell names other servers than the clone uses."""
    state = clone_state(environment.workspace)
    if state == "connected":
        record, name = environment.connected_file, CONNECTED_FILE
        remedy = f"set them as in .erv/{CONNECTED_FILE}, or let `erv connect` change what the clone uses"
    else:
        record, name, remedy = environment.stack_file, STACK_FILE, ""
    refused = unlike_our_servers(environment)
    known = read_stack_file(record)
    other = [n for n, value in known.items() if value and n in os.environ and os.environ[n] != value]
    other = [*dict.fromkeys([*refused, *other])]
    if other:
        remedy = remedy or f"`unset {' '.join(other)}`" + (
            ", or `erv connect` to use servers of others" if refused else ": the shell wins"
        )
        detail = f"the shell's {some(other)} differ from .erv/{name}"
        if refused:
            detail += ", so runs, publications and promotions are refused"
        yield Finding("variables", "fail" if refused else "warn", detail, remedy)


def stack(environment: Environment) -> Iterator[Finding]:
    """The clone's own servers, or whether this shell names those of others that it uses."""
    state = clone_state(environment.workspace)
    if state == "own stack":
        yield from _services(environment)
        return
    yield from _unused(environment)
    shared = shared_servers(environment)
    if lacking := connected_servers(environment):
        servers = ", ".join(f"{name} at {url}" for name, url in lacking.items())
        detail = f"this clone is connected to {servers}, but this shell lacks their ERV_* variables"
        yield Finding("stack", "fail", detail, "set what `erv connect` lists")
    elif shared:
        yield Finding("stack", "ok", f"none of its own: ERV_* variables name {some(list(shared))}")
    else:
        bad: State = "warn" if environment.has_storage else "fail"
        remedy = f"{remedy_for('S3', environment.workspace)}, or set ERV_* variables to use servers elsewhere"
        detail = "the local stack has not been started here"
        yield Finding("stack", bad, detail, f"{remedy} and run `erv connect`")


def _services(environment: Environment) -> Iterator[Finding]:
    from erv.stack import status

    shared = shared_servers(environment)
    for service in status(environment.workspace):
        if service.name in [name.lower() for name in shared]:
            detail = f"{service.state}, not used: ERV_* variables name another server"
            yield Finding(f"stack {service.name}", "ok", detail)
        elif service.state == "running":
            yield Finding(f"stack {service.name}", "ok", f"{service.url} (process {service.pid})")
        else:
            remedy = f"`{command_for('S3', environment.workspace)}`; its log is {service.log}"
            yield Finding(f"stack {service.name}", "fail", service.state, remedy)


def _unused(environment: Environment) -> Iterator[Finding]:
    """Servers of the clone's own that run though it uses those of others."""
    from erv.stack import status

    running = [service.name for service in status(environment.workspace) if service.pid is not None]
    if running:
        detail = f"its own servers run and aren't used: {some(running)}"
        yield Finding("stack", "warn", detail, "`erv stack down` stops them and keeps what they have stored")
