"""Pins sources as they are now, and says in which files each differs from what was pinned before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from erv.errors import DataError
from erv.pinning.journal import PINS
from erv.pinning.pinning import pin
from erv.sources.fetching import ObjectStore
from erv.sources.lock import LOCKS, Lock
from erv.sources.selection import Selection

_NAMED = 3  # files that a sentence names of each kind


@dataclass(frozen=True)
class Repinned:
    """A source that was looked at again; nothing of it is written yet.

    Attributes:
        lock: as it is now.
        path: of its lock file.
        journal: what lets an interrupted look resume.
        added: paths that are new.
        removed: paths that are gone.
        changed: paths with other content.
    """

    lock: Lock
    path: Path
    journal: Path
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]

    @property
    def is_new(self) -> bool:
        """Whether any content differs; the same content that was stored anew doesn't."""
        return bool(self.added or self.removed or self.changed)

    def text(self) -> str:
        """`mafw: 2 files added (a.mp4, b.mp4), 1 removed (c.mp4)`."""
        kinds = {"added": self.added, "removed": self.removed, "changed": self.changed}
        parts = [_counted(kind, paths) for kind, paths in kinds.items() if paths]
        first, *more = parts or ["nothing differs"]
        return f"{self.lock.name}: {', '.join([first, *more])}"

    def save(self) -> bool:
        """Writes the lock file; returns False if it said the same before."""
        written = self.lock.save(self.path)
        self.journal.unlink(missing_ok=True)
        return written


def look_again(
    name: str,
    uri: str,
    store: ObjectStore | None,
    *,
    selection: Selection | None = None,
    allowed_roots: Sequence[str] = (),
    workspace: Path = Path(),
    damaged: Callable[[DataError], None] | None = None,
) -> Repinned:
    """Reads a source as `pin` does; what was pinned and is unchanged in S3 isn't read again.

    Args:
        name: of the source.
        uri: where it is.
        store: needed for `s3://`.
        selection: what its reader needs.
        allowed_roots: see `pin`.
        workspace: where its lock file is.
        damaged: told of a lock file that can't be read, which then counts as none; without it that is an
            error.

    Raises:
        DataError: as `pin`, or the lock file is damaged.
        StorageError: as `pin`.
    """
    path, journal = workspace / LOCKS / f"{name}.lock.json", workspace / PINS / f"{name}.jsonl"
    previous = _previous(path, damaged)
    lock = pin(
        name,
        uri,
        store,
        selection=selection,
        previous=previous,
        journal=journal,
        allowed_roots=allowed_roots,
    )
    before, now = _contents(previous), _contents(lock)
    return Repinned(
        lock,
        path,
        journal,
        added=tuple(sorted(set(now) - set(before))),
        removed=tuple(sorted(set(before) - set(now))),
        changed=tuple(sorted(path for path in set(now) & set(before) if now[path] != before[path])),
    )


def _previous(path: Path, damaged: Callable[[DataError], None] | None) -> Lock | None:
    if not path.is_file():
        return None
    try:
        return Lock.load(path)
    except DataError as error:
        if damaged is None:
            raise
        damaged(error)
        return None


def _contents(lock: Lock | None) -> Mapping[str, str]:
    return {file.path: file.sha256 for file in lock.files} if lock is not None else {}


def _counted(kind: str, paths: Sequence[str]) -> str:
    count = "1 file" if len(paths) == 1 else f"{len(paths)} files"
    more = ", …" if len(paths) > _NAMED else ""
    return f"{count} {kind} ({', '.join(paths[:_NAMED])}{more})"
