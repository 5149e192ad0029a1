"""Checks that what a lock entry names is still in the object store, with the content of its hash."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erv.environment import Environment
from erv.errors import ErvError
from erv.lineage.made import unmade
from erv.lineage.objects import object_uri, push_remedy, replace_remedy
from erv.pipeline import Files

if TYPE_CHECKING:
    from erv.sources import Lock, SourceFile
    from erv.storage.store import Store

SMALL_BYTES = 4_000_000  # objects up to this size are read and hashed; larger ones are only looked up
_NAMED = 3  # faulty files of a source that a link names


@dataclass(frozen=True)
class Link:
    """A link of the lineage, checked.

    Attributes:
        what: is named by it.
        ok: None where it can't be checked from here.
        detail: what was seen, or why it can't be checked.
        elsewhere: whether that is only because it is a folder of another machine.
    """

    what: str
    ok: bool | None
    detail: str
    elsewhere: bool = False

    def text(self) -> str:
        """`ok`, `BROKEN` or `?`, and what was checked."""
        mark = {True: "ok", False: "BROKEN", None: "?"}[self.ok]
        return f"{mark}: {self.what} ({self.detail})"


class LinkChecker:
    """Looks up objects in the DVC remote and in the raw bucket, and caches each answer.

    Args:
        environment: where the store is.
        deep: read and hash large objects too, and every file of pinned sources.
    """

    def __init__(self, environment: Environment, deep: bool = False) -> None:
        self._environment = environment
        self._deep = deep
        self._checked: dict[str, Link] = {}
        self._listed: dict[str, Files | None] = {}
        self._sources: dict[tuple[str, str | None], Link] = {}

    @cached_property
    def _store(self) -> Store:
        from erv.storage.store import open_store

        return open_store(self._environment)

    @cached_property
    def _remote(self) -> dict[str, int]:
        """Size by hash of every object in the DVC remote: one listing instead of one request per object."""
        prefix = "files/md5/"
        listing = self._store.list(f"s3://{self._environment.dvc_bucket}/{prefix.rstrip('/')}")
        return {info.key.removeprefix(prefix).replace("/", ""): info.size for info in listing}

    def made(self, name: str, entry: Mapping[str, Any], unread: str = "") -> list[Link]:
        """A link that can't be checked, if neither DVC's run cache here nor that of the remote has an entry.

        Args:
            name: of the stage.
            entry: of `dvc.lock`, which no run in MLflow made.
            unread: why MLflow couldn't be asked; empty if it could.
        """
        store = self._store if self._environment.has_storage else None
        reason = unmade(name, entry, self._environment, store)
        if reason and unread:
            reason = f"DVC's run cache doesn't have it, and {unread}"
        return [] if reason is None else [Link(f"lock entry of {name}", None, reason)]

    def output(self, path: str, md5: str | None) -> Link:
        """Verifies a file or folder that DVC tracks."""
        if md5 is None:
            return Link(path, None, "not hashed")
        if not self._environment.has_storage:
            return Link(path, None, "no object store is configured")
        if md5 not in self._checked:
            try:
                ok, detail = self._folder(md5) if md5.endswith(".dir") else self._object(md5)
            except ErvError as error:
                ok, detail = None, str(error)
            self._checked[md5] = Link(path, ok, detail)
        known = self._checked[md5]
        return Link(path, known.ok, known.detail)

    def listing(self, md5: str) -> Files | None:
        """Hash by path of the files in a folder that DVC tracks; None if that can't be read."""
        if md5 not in self._listed:
            self._listed[md5] = self._list(md5)
        return self._listed[md5]

    def _list(self, md5: str) -> Files | None:
        if not self._environment.has_storage:
            return None
        try:
            return {item["relpath"]: item["md5"] for item in json.loads(self._read(md5))}
        except (ErvError, ValueError, KeyError, TypeError):  # the link of the output says what is wrong
            return None

    def _object(self, md5: str) -> tuple[bool, str]:
        size = self._remote.get(md5)
        if size is None:
            return False, f"{object_uri(self._environment, md5)}: missing; {push_remedy()}"
        if size > SMALL_BYTES and not self._deep:
            return True, f"md5 {md5}, {size} bytes, present"
        if self._digest(md5) != md5.removesuffix(".dir"):
            where = object_uri(self._environment, md5)
            return False, f"{where}: its content differs from its name; {replace_remedy()}"
        return True, f"md5 {md5}, {size} bytes, hash equal"

    def _folder(self, md5: str) -> tuple[bool, str]:
        ok, detail = self._object(md5)
        if not ok:
            return ok, detail
        entries = json.loads(self._read(md5))
        results = [(entry["relpath"], *self._object(entry["md5"])) for entry in entries]
        broken = [f"{name}: {why}" for name, fine, why in results if not fine]
        if broken:
            return False, f"{len(broken)} of {len(entries)} files; {broken[0]}"
        hashed = sum(why.endswith("hash equal") for _name, _fine, why in results)
        return True, f"md5 {md5}, {len(entries)} files present, {hashed} hashed"

    def _digest(self, md5: str) -> str:
        return hashlib.md5(self._read(md5), usedforsecurity=False).hexdigest()

    def _read(self, md5: str) -> bytes:
        return self._store.read(object_uri(self._environment, md5))

    def source(self, path: str, md5: str | None, lock_file: Path | None) -> Link:
        """Verifies a pinned source: its lock is the one that was used, and each of its files exists.

        If `deep`, each file also has the pinned content.

        Args:
            path: of the lock, as in `dvc.lock`.
            md5: of the lock, as in `dvc.lock`.
            lock_file: a copy of the lock; None if there is none.
        """
        from erv.files import md5_of_file
        from erv.sources import Lock

        if lock_file is None or not lock_file.is_file():
            return Link(path, None, "the lock is missing here; restore it from git")
        if md5_of_file(lock_file) != md5:
            return Link(path, None, f"the lock here differs from {md5}; restore it from git")
        if (path, md5) not in self._sources:
            self._sources[path, md5] = self._pinned(path, Lock.load(lock_file))
        return self._sources[path, md5]

    def _pinned(self, path: str, lock: Lock) -> Link:
        """Looks for the files of a source, and reads them if that is asked for."""
        from erv.sources.fetching import is_remote, local_root

        if is_remote(lock.uri):
            try:
                missing = self._missing(lock)
            except ErvError as error:
                return Link(path, None, str(error))
        else:
            root = local_root(lock.uri)
            if not root.is_dir():
                return Link(path, None, f"{root} is not on this machine", elsewhere=True)
            missing = [file.path for file in lock.files if not _is_in(root, file)]
        if self._deep:
            return self._read_whole(path, lock, missing)
        if missing:
            return Link(path, False, f"{len(missing)} of {len(lock.files)} files of {lock.uri}: {missing[0]}")
        return Link(path, True, f"{len(lock.files)} files of {lock.uri} present{_versions(lock)}")

    def _read_whole(self, path: str, lock: Lock, missing: Sequence[str]) -> Link:
        from erv.lineage.pinned import read_content

        lost = set(missing)
        content = read_content(lock, [f for f in lock.files if f.path not in lost], lambda: self._store)
        faults = {**dict.fromkeys(missing, "missing"), **content.faults}
        if faults:
            named = ", ".join(f"{name} ({faults[name]})" for name in sorted(faults)[:_NAMED])
            more = f" and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
            others = f"; others can't be read: {content.unread}" if content.unread else ""
            detail = f"{len(faults)} of {len(lock.files)} files of {lock.uri}: {named}{more}{others}"
            return Link(path, False, f"{detail}; put back what was pinned")
        if content.unread:
            return Link(path, None, f"not every file of {lock.uri} was read: {content.unread}")
        return Link(path, True, f"{len(lock.files)} files of {lock.uri} read{_versions(lock)}, hashes equal")

    def _missing(self, lock: Lock) -> list[str]:
        from erv.sources.frame_folders import is_frame

        listing = {info.uri: info for info in self._store.list(lock.uri)}
        images = Counter(uri.rpartition("/")[0] + "/" for uri in listing if is_frame(uri.rpartition("/")[2]))

        def there(file: SourceFile) -> bool:
            uri = lock.uri_of(file.path)
            if file.archive:  # its zip is listed too
                return True
            if file.frames:
                return images[uri] == file.frames
            newest = listing.get(uri)
            if (
                newest is not None
                and newest.size == file.bytes
                and file.version_id in (None, newest.version_id)
            ):
                return True
            # Overwritten since: the pinned version may still be kept.
            return file.version_id is not None and self._store.exists(uri, file.version_id)

        return [file.path for file in lock.files if not there(file)]


def _versions(lock: Lock) -> str:
    return " in their pinned versions" if any(file.version_id for file in lock.files) else ""


def _is_in(root: Path, file: SourceFile) -> bool:
    """Whether a local source still has a file of the right size; its content is another question."""
    if file.archive:  # its zip is listed too
        return (root / file.archive).is_file()
    if file.frames:
        return (root / file.path).is_dir()
    path = root / file.path
    return path.is_file() and path.stat().st_size == file.bytes
