"""Fetches pinned content: a local file or folder of frames that matches its hash exactly.

Files of a local source are used in place. Objects, members of zips and folders made from them go into a cache
by hash, so nothing is read twice. Every fetch verifies the content.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from erv.errors import DataError
from erv.files import sha256_of_file, sweep, whole_file
from erv.sources.archives import Archive
from erv.sources.frame_folders import check, collect, hash_folder, is_frame, place
from erv.sources.threads import THREADS, Progress, in_order

if TYPE_CHECKING:
    from erv.sources.lock import Lock, SourceFile

CACHE = Path(".erv/sources")


class ObjectStore(Protocol):
    """The part of `erv.storage.store.Store` that is needed here."""

    def list(self, uri: str, /) -> list[Any]:
        """Objects below an `s3://` folder, sorted: items with uri, size, version_id, etag."""

    def download(
        self,
        uri: str,
        path: Path,
        /,
        version_id: str | None = None,
        sha256: str | None = None,
        *,
        size: int | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> Path:
        """Copies an object to a file, which appears only once it is complete and has the right hash."""


def is_remote(uri: str) -> bool:
    """Whether a source is in an object store."""
    return uri.startswith("s3://")


def local_root(uri: str) -> Path:
    """The folder of a local source."""
    return Path(uri.removeprefix("file://"))


def need(store: ObjectStore | None, uri: str) -> ObjectStore:
    """The store; raises DataError when there is none."""
    if store is None:
        raise DataError(f"{uri}: no object store was given to read it from")
    return store


class Fetcher(ExitStack):
    """Reads files of a pinned source; keeps its zips open until it is closed. Safe for several threads."""

    def __init__(self, lock: Lock, store: ObjectStore | None, cache: Path = CACHE) -> None:
        super().__init__()
        self._source, self._store, self._cache = lock, store, cache
        self.progress = Progress()
        self._archives: dict[str, Archive] = {}
        self._opening: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    def get(self, file: SourceFile) -> Path:
        """A local file, or folder of frames, with the pinned content.

        Raises:
            DataError: it is missing, or its content differs from the pinned one.
            StorageError: the object can't be read, or its content differs from the pinned one.
        """
        uri = self._source.uri_of(file.path)
        try:
            if file.archive is not None:
                return self._member(file, file.archive, uri)
            if is_remote(uri):
                return self._remote_folder(file, uri) if file.frames else self._object(file, uri)
            return self._local(file, uri)
        except OSError as error:
            what = f"{error.filename or uri}: {error.strerror or error}"
            raise DataError(f"{what}; needed for {uri}, fix it and run again") from error

    def _local(self, file: SourceFile, uri: str) -> Path:
        path = local_root(self._source.uri) / file.path
        if not (path.is_dir() if file.frames else path.is_file()):
            what = "folder" if file.frames else "file"
            raise DataError(f"{uri}: {what} not found; restore it or pin again with `erv data pin`")
        if file.frames:
            check(hash_folder(path, uri, self.progress), file.sha256, uri)
        else:
            _check_file(path, file.sha256, uri, self.progress)
        return path

    def _object(self, file: SourceFile, uri: str) -> Path:
        kept = self._kept(file)
        if kept is not None:
            return kept
        return need(self._store, uri).download(
            uri,
            place(self._cache, file.sha256),
            version_id=file.version_id,
            sha256=file.sha256,
            size=file.bytes,
            on_bytes=self.progress.read,
        )

    def _remote_folder(self, file: SourceFile, uri: str) -> Path:
        kept = self._kept(file)
        if kept is not None:
            return kept
        store = need(self._store, uri)
        names = {item.uri.removeprefix(uri): item for item in store.list(uri)}
        images = {name: item for name, item in names.items() if "/" not in name and is_frame(name)}

        def fill(folder: Path) -> None:
            for name, item in sorted(images.items()):
                store.download(
                    item.uri,
                    folder / name,
                    version_id=item.version_id,
                    size=item.size,
                    on_bytes=self.progress.read,
                )

        return collect(place(self._cache, file.sha256), file.sha256, uri, fill)

    def _member(self, file: SourceFile, archive: str, uri: str) -> Path:
        kept = self._kept(file)
        if kept is not None:
            return kept
        target = place(self._cache, file.sha256)
        opened = self._open(archive)
        try:
            return self._extract(opened, file, target, uri)
        except DataError:
            if not is_remote(uri):
                raise
            renewed = self._renew(archive, opened)
        return self._extract(renewed, file, target, uri)

    def _extract(self, archive: Archive, file: SourceFile, target: Path, uri: str) -> Path:
        member = file.member or ""
        if not file.frames:
            with whole_file(target, shared=True) as temporary:
                archive.copy(member, temporary, self.progress.read)
                _check_file(temporary, file.sha256, uri, self.progress)
            return target

        def fill(folder: Path) -> None:
            for name in archive.by_folder.get(member, ()):
                if is_frame(name):
                    archive.copy(name, folder / name.rpartition("/")[2], self.progress.read)

        return collect(target, file.sha256, uri, fill)

    def _open(self, archive: str) -> Archive:
        """The zip, opened once: listing ten thousand members once per member would take hours.

        The zip is not hashed as a whole, because each member is.
        """
        with self._turn(archive):
            if archive not in self._archives:
                file, uri = self._source.find(archive), self._source.uri_of(archive)
                if not is_remote(uri):
                    path = local_root(self._source.uri) / archive
                    if not path.is_file():
                        raise DataError(f"{uri}: file not found; restore it or run `erv data pin`")
                    opened = Archive(path, uri, archive)
                else:
                    path = place(self._cache, file.sha256)
                    try:
                        opened = Archive(path if path.is_file() else self._object(file, uri), uri, archive)
                    except DataError:  # the kept copy is damaged: hashed as a whole it is read again
                        opened = Archive(self._object(file, uri), uri, archive)
                self._archives[archive] = self.enter_context(opened)
            return self._archives[archive]

    def _renew(self, archive: str, damaged: Archive) -> Archive:
        """The zip, hashed as a whole and read again if it differs from the pinned one."""
        with self._turn(archive):
            if self._archives[archive] is damaged:
                file, uri = self._source.find(archive), self._source.uri_of(archive)
                # The damaged one stays open to the end, since another thread may be reading from it.
                self._archives[archive] = self.enter_context(Archive(self._object(file, uri), uri, archive))
            return self._archives[archive]

    def _turn(self, archive: str) -> threading.Lock:
        with self._guard:
            return self._opening.setdefault(archive, threading.Lock())

    def _kept(self, file: SourceFile) -> Path | None:
        """The cached content, if it is complete."""
        path = place(self._cache, file.sha256)
        if file.frames:
            whole = path.is_dir() and hash_folder(path, str(path), self.progress).sha256 == file.sha256
        else:
            whole = path.is_file() and sha256_of_file(path, self.progress.read) == file.sha256
        return path if whole else None


class _Stored(Protocol):
    @property
    def uri(self) -> str: ...
    @property
    def sha256(self) -> str: ...


def fetch_all(
    rows: Sequence[_Stored], lock: Lock, store: ObjectStore | None, *, cache: Path = CACHE
) -> Iterator[Path]:
    """Yields the local file or folder of frames of each manifest row, in order, fetching a little ahead.

    First removes what killed processes left in the cache.

    Args:
        rows: of the manifest; looked up in the lock by uri.
        lock: of the same data set.
        store: needed for `s3://`.
        cache: folder of content by hash.

    Raises:
        DataError: a row is not in the lock; otherwise as `Fetcher.get`.
        StorageError: as `Fetcher.get`.
    """
    files = [_belonging(row, lock) for row in rows]
    sweep(cache)
    with Fetcher(lock, store, cache) as fetcher:
        yield from in_order(fetcher.get, files, fetcher.progress, threads=THREADS)


def _belonging(row: _Stored, lock: Lock) -> SourceFile:
    file = lock.by_uri.get(row.uri)
    if file is None or file.sha256 != row.sha256:
        raise DataError(f"{row.uri}: the manifest does not match the lock of {lock.name}; run ingest again")
    return file


def _check_file(path: Path, sha256: str, uri: str, progress: Progress) -> None:
    found = sha256_of_file(path, progress.read)
    if found != sha256:
        raise DataError(
            f"{uri}: content has changed since it was pinned (sha256 {found[:12]}, expected {sha256[:12]});"
            " restore it or pin again with `erv data pin`"
        )
