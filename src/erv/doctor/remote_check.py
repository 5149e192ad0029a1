"""Whether DVC's files are whole, and its remote is that of the object store in use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from erv.doctor.finding import Finding
from erv.environment import Environment, clone_state, command_for, shared_servers


def dvc(environment: Environment) -> Iterator[Finding]:
    """DVC's files, its lock and where its remote points."""
    folder = environment.workspace / ".dvc"
    if not (folder / "config").is_file():
        yield Finding(
            "dvc", "fail", "no .dvc/config here", "run this from the top of the repository, or `dvc init`"
        )
        return
    from erv.pipeline import lock_fault
    from erv.stack.dvc_remote import read_dvc_config, stale_settings

    read_dvc_config(folder / "config")
    local = read_dvc_config(folder / "config.local").get('remote "erv"', {})
    if not _is_locked(folder / "tmp" / "lock"):  # or a dvc may just be writing it
        fault = lock_fault(environment.workspace)
        if fault is not None:
            what, _, remedy = fault.rpartition("; ")
            yield Finding("dvc", "fail", what, remedy)
            return
    if environment.has_storage and (stale := stale_settings(environment)):
        detail = "the remote in .dvc/config.local is not that of the object store in use"
        detail += f": {', '.join(stale)} differ" if local else ": it is not written yet"
        yield Finding("dvc", "fail", detail, _remedy(environment))
        return
    if _is_locked(folder / "tmp" / "lock"):
        yield Finding("dvc", "warn", "another dvc is running here", "wait for it; run one pipeline at a time")
        return
    lock = environment.workspace / "dvc.lock"
    detail = "dvc.lock is there" if lock.is_file() else "nothing has run yet (no dvc.lock)"
    yield Finding("dvc", "ok", f"remote {local.get('url', 'as in .dvc/config')}, {detail}")


def _remedy(environment: Environment) -> str:
    if clone_state(environment.workspace) == "own stack" and "S3" in shared_servers(environment):
        return "unset ERV_S3_* in this shell: this clone uses its own stack, and so does its remote"
    return f"`{command_for('S3', environment.workspace)}` writes it"


def _is_locked(path: Path) -> bool:
    """Whether a process holds DVC's repository lock (zc.lockfile: flock on the file)."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        return False
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        fcntl.flock(stream, fcntl.LOCK_UN)
    return False
