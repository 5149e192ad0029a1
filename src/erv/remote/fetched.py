"""Which commits a worker's repository has, and when each was fetched.

A stamp per commit says when: git packs the refs, which then have no time of their own.
"""

from __future__ import annotations

from pathlib import Path

from erv.remote.commit import git

COMMITS = "refs/erv"  # a ref for each, named by its id
_STAMPS = "erv-fetched"


def stamp_of(repository: Path, commit: str) -> Path:
    """The file whose time is that of the fetch."""
    return repository / _STAMPS / commit


def note_fetched(repository: Path, commit: str) -> None:
    """Notes that a commit has just been fetched."""
    stamp = stamp_of(repository, commit)
    stamp.parent.mkdir(exist_ok=True)
    stamp.touch()


def fetched_commits(repository: Path) -> list[str]:
    """The ids of all that were fetched, whether git has packed their refs or not."""
    if not (repository / "HEAD").is_file():
        return []
    listed = git(repository, "for-each-ref", "--format=%(refname:lstrip=2)", COMMITS)
    return listed.decode().split()


def fetched_at(repository: Path, commit: str) -> float | None:
    """When a commit was fetched, in seconds since 1970; None if nothing says.

    One that an earlier version of erv fetched has no stamp. Its ref has the time, unless git has packed it.
    """
    ref = repository / COMMITS / commit
    for path in (stamp_of(repository, commit), ref):
        try:
            return path.stat().st_mtime
        except FileNotFoundError:
            continue
    return None
