"""What a worker's home keeps from stage to stage, by age: commits, DVC's cache, fetched sources.

All of it can be fetched again. Nothing is removed while a stage runs in the home, as the stage may be about
to use it, and none begins meanwhile. DVC's own `dvc gc` keeps what a workspace or commits name; a home has
neither: the `dvc.lock` of a request need not be in any commit.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from erv.errors import StackError
from erv.files import remove
from erv.remote.checkout import Home
from erv.remote.commit import git
from erv.remote.fetched import COMMITS, fetched_at, fetched_commits, note_fetched, stamp_of

KEEP_VARIABLE = "ERV_WORKER_KEEP_DAYS"
KEEP_DAYS = 30.0
DAY = 86_400.0
_STAMP = "tidied"


@dataclass(frozen=True)
class Freed:
    """What was removed, or would be.

    Attributes:
        files: of the cache and the sources.
        commits: of the repository.
        size: of the files, in bytes.
        running: stages that run in the home, for which nothing was removed.
    """

    files: int = 0
    commits: int = 0
    size: int = 0
    running: int = 0


def keep_days() -> float:
    """For how many days a worker keeps what it has fetched; 0 for ever.

    Raises:
        StackError: the variable is no number of days.
    """
    text = os.environ.get(KEEP_VARIABLE) or str(KEEP_DAYS)
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 <= days < float("inf"):
        raise StackError(f"{KEEP_VARIABLE} is {text!r}; expected a number of days, or 0 to keep everything")
    return days


def remove_old(home: Home, days: float, *, dry: bool = False) -> Freed:
    """Removes what was fetched or made more than so many days ago.

    Args:
        home: of workers.
        days: the age from which something goes.
        dry: only count.

    Raises:
        CommitError: git fails.
    """
    with home.alone():
        home.sweep()
        if running := len(home.running()):
            return Freed(running=running)
        before = time.time() - days * DAY
        files, size = 0, 0
        for path in _entries(home):
            if (found := _old(path, before)) is not None:
                files, size = files + 1, size + found
                if not dry:
                    remove(path)
        # A checkout that still waits for MLflow borrows from the repository.
        commits = 0 if any(home.checkouts.glob("*")) else _old_commits(home.repository, before, dry=dry)
        if not dry:
            (home.folder / _STAMP).touch()
        return Freed(files, commits, size)


def remove_old_once_a_day(home: Home, days: float) -> Freed:
    """The same, unless it was done within a day or `days` is 0."""
    stamp = home.folder / _STAMP
    if days == 0 or (stamp.is_file() and time.time() - stamp.stat().st_mtime < DAY):
        return Freed()
    return remove_old(home, days)


def _entries(home: Home) -> Iterator[Path]:
    """Files of DVC's cache, and files and folders of frames that were fetched; both by content."""
    yield from (home.cache / "files").glob("*/??/*")
    yield from home.sources.glob("??/*")


def _old(path: Path, before: float) -> int | None:
    """The size of an entry that is older; None if it is younger, or gone."""
    try:
        state = path.stat()
        if state.st_mtime >= before:
            return None
        if not path.is_dir():
            return state.st_size
        return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
    except FileNotFoundError:
        return None


def _old_commits(repository: Path, before: float, *, dry: bool) -> int:
    """Drops commits that were fetched earlier, with what only they have."""
    old = []
    for commit in fetched_commits(repository):
        fetched = fetched_at(repository, commit)
        if fetched is None and not dry:
            note_fetched(repository, commit)  # its age counts from now on
        elif fetched is not None and fetched < before:
            old.append(commit)
    if old and not dry:
        for commit in old:
            git(repository, "update-ref", "-d", f"{COMMITS}/{commit}")
        git(repository, "gc", "--quiet", "--prune=now")
        for commit in old:
            stamp_of(repository, commit).unlink(missing_ok=True)
    return len(old)
