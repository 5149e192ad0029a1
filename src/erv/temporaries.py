"""Names of what is not complete yet, and whose it is, so that what a killed process left can be removed.

A name holds the machine, the process and a random part. The machine is part of it because a workspace may lie
on a file system that several machines share, where a process id alone says nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

_NAME = re.compile(r"\..+\.(?P<machine>[0-9a-f]{8})-(?P<process>[0-9]{1,10})-[0-9a-f]{8}")
# What another machine (a container that is gone) left untouched for so long belongs to nobody.
_ABANDONED_SECONDS = 7 * 24 * 3600.0


def temporary_name(path: Path) -> Path:
    """A fresh name beside `path`, for what is to replace it when it is complete."""
    return path.with_name(f".{path.name}.{_machine()}-{os.getpid()}-{os.urandom(4).hex()}")


def sweep(cache: Path) -> None:
    """Removes what killed processes left in a cache of content by hash.

    Only entries with a `temporary_name` are touched, and of those only what belongs to a process of this
    machine that is gone, or to another machine and untouched for a week. Parts of large downloads have other
    names and stay, so that the download goes on from them.
    """
    for path in _entries(cache):
        match = _NAME.fullmatch(path.name)
        if match is None or not _is_dead(path, match["machine"], int(match["process"])):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):  # another process swept it, or it is another user's
                path.unlink()


def _entries(cache: Path) -> Iterator[Path]:
    """The entries of `cache/XX` and of `cache/incoming/SOURCE` whose names begin with a dot."""
    for pattern in ("[0-9a-f][0-9a-f]/.*", "incoming/*/.*"):
        with contextlib.suppress(FileNotFoundError):  # a folder went while it was listed
            yield from list(cache.glob(pattern))


def _is_dead(path: Path, machine: str, process: int) -> bool:
    import psutil

    if machine == _machine():
        return not psutil.pid_exists(process)
    try:
        return time.time() - path.lstat().st_mtime > _ABANDONED_SECONDS
    except OSError:  # it is complete or gone meanwhile
        return False


def _machine() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]
