"""Connects a clone with servers that others run: checks them, and tells DVC where its remote is.

`erv stack up` does both for the servers of a workspace of its own. `erv.stack.switch` says when a clone may
change from one to the other.
"""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

from erv.environment import (
    CONNECTED_FILE,
    LEFT_FILE,
    Environment,
    clone_state,
    connection_lines,
    named_environment,
    recorded_servers,
    unset_variables,
)
from erv.errors import ErvError, StackError, StorageError
from erv.stack import switch
from erv.stack.control import deliver_waiting, status
from erv.stack.dvc_remote import write_dvc_remote, write_private
from erv.stack.reach import server_version

_S3 = ("ERV_S3_ENDPOINT", "ERV_S3_ACCESS_KEY", "ERV_S3_SECRET_KEY")
_LOCAL = Path(".dvc/config.local")
_PROBE = ".erv-connect"
_HEADER = "# Written by `erv connect`: the servers that it connected this clone to; keys are not kept here.\n"


def connect(workspace: str | Path = ".") -> list[str]:
    """Checks the servers that `ERV_*` variables name, then writes DVC's remote into `.dvc/config.local`.

    Repeating it is safe. Nothing is written unless every server that is named can be used. The addresses are
    also kept in `.erv/connected.env`, so that a shell without the variables can be told which it lacks. From
    then on the clone uses these servers, and no stack of its own, whose state is kept.

    Args:
        workspace: root of the repository.

    Returns:
        What was found and done: a line for each server, one for DVC, and one if the clone used others before.

    Raises:
        StackError: no object store is named, a server can't be used (all of them are in the message), this
            is no DVC repository, git would see the keys, the clone's own stack runs, or runs wait for
            another MLflow.
        SettingsError: a variable is not what its name says.
    """
    environment = named_environment(workspace)
    _check_place(environment)
    if not environment.has_storage:
        raise StackError(_nothing_named(environment))
    running = [service.name for service in status(environment.workspace) if service.pid is not None]
    switch.check_connecting(environment, running)
    left = switch.left_by_connecting(environment)
    checks = [("S3", _storage), ("MLflow", _tracking), ("Prefect", _orchestration)]
    lines, faults = [], []
    for name, check in checks:
        try:
            lines.append(f"{name:8} {check(environment)}")
        except ErvError as error:
            faults.append(environment.mask(str(error)))
    if faults:
        raise StackError(
            "\n".join(["not connected, nothing was written:", *(f"  - {one}" for one in faults)])
        )
    lines.append(f"DVC      {_write_remote(environment)}")
    write_private(
        environment.connected_file, "\n".join([_HEADER.rstrip(), *connection_lines(environment), ""])
    )
    environment.left_file.unlink(missing_ok=True)
    if environment.mlflow_uri:
        deliver_waiting(environment)
    return [*lines, *left]


def _nothing_named(environment: Environment) -> str:
    """What a shell lacks; if the clone is or was connected, as lines to paste and complete."""
    own = clone_state(environment.workspace) == "own stack"
    record = LEFT_FILE if own else CONNECTED_FILE
    servers = recorded_servers(environment.workspace, record)
    stays = "; this clone uses its own stack, and goes on doing so" if own else ""
    if not servers:
        missing = ", ".join(name for name in _S3 if name not in environment.variables())
        return (
            f"{missing} not set, so no object store is named; set what your team gave you, then run"
            f" `erv connect`{stays}"
        )
    named = ", ".join(f"{name} at {url}" for name, url in servers.items())
    values = unset_variables(environment, record).items()
    return "\n".join(
        [
            f"this clone {'was' if own else 'is'} connected to {named}, and this shell lacks their variables;"
            f" set them (keys as your team gave them to you){stays}:",
            *(f"  export {name}={shlex.quote(value) if value else '...'}" for name, value in values),
        ]
    )


def _check_place(environment: Environment) -> None:
    """Refuses a folder in which the remote can't be written, or would end up in git."""
    root = environment.workspace
    if not (root / ".dvc").is_dir():
        raise StackError(f"{root}: no DVC repository (.dvc is missing); go to the top of your clone")
    inside = _git(root, "rev-parse", "--is-inside-work-tree")
    if inside == 0 and _git(root, "check-ignore", "--quiet", str(_LOCAL)) != 0:
        raise StackError(
            f"{_LOCAL} is not ignored by git, and keys would be written to it; add /config.local to"
            " .dvc/.gitignore"
        )


def _git(root: Path, *arguments: str) -> int:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode


def _storage(environment: Environment) -> str:
    """Lists all three buckets; in DVC's, it writes, reads and deletes an empty object."""
    from erv.storage.store import open_store

    store = open_store(environment, patient=False)
    buckets = (environment.raw_bucket, environment.dvc_bucket, environment.artifact_bucket)
    for bucket in buckets:
        store.list(f"s3://{bucket}/{_PROBE}")
    found = f"{environment.s3_endpoint or 'Amazon S3'} takes the key and lists {', '.join(buckets)}"
    dvc = environment.dvc_bucket
    probe = f"s3://{dvc}/{_PROBE}"
    try:
        store.write(b"", probe)
        store.read(probe)
    except StorageError as error:
        return f"{found}; {dvc} can't be written to ({_reason(error)}), so `dvc push` won't work"
    try:
        store.delete(probe)
    except StorageError as error:
        return (
            f"{found}; {dvc} can be written and read, but nothing can be deleted there ({_reason(error)}):"
            f" `dvc push` works, `dvc gc --cloud` won't, and an empty {_PROBE} stays there"
        )
    return f"{found}; {dvc} can be written to and read"


def _reason(error: StorageError) -> str:
    return str(error).partition("; ")[0]


def _tracking(environment: Environment) -> str:
    url = environment.mlflow_uri
    if url is None:
        return "not named (ERV_MLFLOW_URI): runs are not tracked"
    address = f"{url.rstrip('/')}/version"
    found = server_version("MLflow", url, address, environment.mlflow_headers, environment.workspace)
    return f"{found} at {url}"


def _orchestration(environment: Environment) -> str:
    url = environment.prefect_api_url
    if url is None:
        return "not named (ERV_PREFECT_API_URL): `erv run` needs it, `dvc repro` doesn't"
    address = f"{url.rstrip('/')}/admin/version"
    found = server_version("Prefect", url, address, environment.prefect_headers, environment.workspace)
    return f"{found} at {url}"


def _write_remote(environment: Environment) -> str:
    path = environment.workspace / _LOCAL
    before = path.read_bytes() if path.is_file() else b""
    write_dvc_remote(environment)
    what = "already pointed" if path.read_bytes() == before else "now points"
    return f"{_LOCAL} {what} at s3://{environment.dvc_bucket}; `dvc pull` fetches what dvc.lock names"
