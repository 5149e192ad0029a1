"""Locks on files that DVC keeps for processes that have ended.

While a stage runs, `.dvc/tmp/rwlock` says which DVC process reads and writes which files. DVC drops the
entry of a killed process only if its id is free. It isn't while the process is a zombie (in a container
without an init process, for ever), nor when another process has been given the id. And DVC writes the file in
place, so a kill or a full disk can leave half of it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from erv.files import write_text

FOLDER = Path(".dvc/tmp")


def release_dead_holders(workspace: str | Path = ".") -> list[int]:
    """Drops the entries of processes that have ended; a file that can't be read is deleted.

    Returns:
        Their process ids, sorted; nothing if all that hold a lock are alive.
    """
    path = Path(workspace) / FOLDER / "rwlock"
    if not _dead(_read(path)) and _read(path) is not None:
        return []
    with _guard(Path(workspace)):
        content = _read(path)
        if content is None:
            path.unlink(missing_ok=True)
            return []
        dead = _dead(content)
        for file, holder in list(content.get("write", {}).items()):
            if holder.get("pid") in dead:
                del content["write"][file]
        for file, holders in list(content.get("read", {}).items()):
            content["read"][file] = [holder for holder in holders if holder.get("pid") not in dead]
            if not content["read"][file]:
                del content["read"][file]
        write_text(json.dumps(content), path)
    return sorted(dead)


def _read(path: Path) -> dict[str, Any] | None:
    """The content of the file; None if it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        _holders(content)
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError):
        return None
    found: dict[str, Any] = content
    return found


def _holders(content: dict[str, Any]) -> list[dict[str, Any]]:
    holders = list(content.get("write", {}).values())
    holders += [holder for readers in content.get("read", {}).values() for holder in readers]
    return [{"pid": int(holder["pid"]), "cmd": str(holder["cmd"])} for holder in holders]


def _dead(content: dict[str, Any] | None) -> set[int]:
    return {holder["pid"] for holder in _holders(content or {}) if not _lives(holder["pid"], holder["cmd"])}


def _lives(pid: int, command: str) -> bool:
    """Whether a process runs under this id and is the one that DVC noted by its command line."""
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        # DVC notes sys.argv, whose first word differs from that of the command line.
        return " ".join(process.cmdline()).endswith(command.partition(" ")[2])
    except psutil.AccessDenied:
        return True
    except psutil.NoSuchProcess:
        return False


def _guard(workspace: Path) -> Any:
    """The lock under which DVC changes the file."""
    from dvc.lock import make_lock
    from dvc.repo import Repo

    with Repo(str(workspace)) as repo:
        hardlinks = bool(repo.config["core"].get("hardlink_lock", False))
    folder = str(workspace / FOLDER)
    return make_lock(f"{folder}/rwlock.lock", tmp_dir=folder, hardlink_lock=hardlinks, wait=True)
