"""Sources: what a raw tree consists of, pinned in a small lock file that lives in git.

A lock lists every file with size, sha256 and (in a versioned bucket) version id. It is what the stages
depend on: content is verified on every read, and downloads are kept by their hash so that nothing is fetched
twice.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from erv.errors import DataError

logger = logging.getLogger(__name__)

CACHE = Path(".erv/sources")
LOCKS = Path("data/sources")
_THREADS = 8
_PREFETCHED = 32
_HOW_TO_PIN = "`erv data pin`"


class ObjectStore(Protocol):
    """What is needed of `erv.storage.Store`."""

    def list(self, uri: str, /) -> list[Any]:
        """Objects below an `s3://` folder, sorted: items with uri, size, version_id."""

    def download(
        self, uri: str, path: Path, /, version_id: str | None = None, sha256: str | None = None
    ) -> Path:
        """Copies an object to a file, which appears only when complete and with the right hash."""


@dataclass(frozen=True)
class SourceFile:
    """A file of a source: path below the source's uri, size in bytes, hex digest, S3 version id or None."""

    path: str
    bytes: int
    sha256: str
    version_id: str | None


@dataclass(frozen=True)
class Lock:
    """A pinned source.

    Attributes:
        name: e.g. `mafw`.
        uri: `s3://bucket/prefix`, or a local folder.
        files: sorted by path.
    """

    name: str
    uri: str
    files: tuple[SourceFile, ...]

    @staticmethod
    def load(path: Path) -> Lock:
        """Reads a lock file.

        Raises:
            DataError: it is missing or malformed, or a file's path leads out of the source.
        """
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            files = tuple(SourceFile(**item) for item in raw["files"])
            lock = Lock(raw["name"], raw["uri"], files)
            outside = _first_outside(file.path for file in files)
        except FileNotFoundError:
            raise DataError(f"{path}: source is not pinned; run {_HOW_TO_PIN}") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path}: not a lock file ({error}); write it again with {_HOW_TO_PIN}"
            ) from error
        if outside is not None:
            raise DataError(
                f"{path}: {outside!r} is not a plain path below {lock.uri}; write the lock file again with"
                f" {_HOW_TO_PIN}"
            )
        return lock

    def text(self) -> str:
        """The lock as it is written: indented JSON, files sorted by path."""
        files = [asdict(file) for file in sorted(self.files, key=lambda file: file.path)]
        return (
            json.dumps({"name": self.name, "uri": self.uri, "files": files}, indent=2, ensure_ascii=False)
            + "\n"
        )

    def save(self, path: Path) -> bool:
        """Writes the lock; returns False and leaves the file alone when it already says the same."""
        text = self.text()
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
        return True

    @cached_property
    def by_path(self) -> dict[str, SourceFile]:
        """Files by path."""
        return {file.path: file for file in self.files}

    def __contains__(self, path: str) -> bool:
        return path in self.by_path

    def find(self, path: str) -> SourceFile:
        """The entry of a path; raises DataError when the source has no such file."""
        try:
            return self.by_path[path]
        except KeyError:
            raise DataError(f"source {self.name} ({self.uri}) has no file {path!r}") from None

    def uri_of(self, path: str) -> str:
        """Where a file of the source lies."""
        return f"{self.uri.rstrip('/')}/{path}"

    def read(self, store: ObjectStore | None, path: str) -> bytes:
        """A file's content, verified against its sha256; local sources need no store.

        Raises:
            DataError: no such file, or its content has changed since it was pinned.
            StorageError: the object can't be read.
        """
        return self.fetch(store, path).read_bytes()

    def fetch(self, store: ObjectStore | None, path: str, cache: Path = CACHE) -> Path:
        """A local file with the pinned content; raises as `read`."""
        file = self.find(path)
        return fetch(self.uri_of(path), file.sha256, store, cache=cache, version_id=file.version_id)

    def fetch_tree(self, store: ObjectStore | None, prefix: str, folder: Path, cache: Path = CACHE) -> Path:
        """Copies all files below `prefix` into `folder` (made anew), keeping their relative paths.

        Returns:
            `folder`.

        Raises:
            DataError: nothing lies below the prefix; else as `read`.
        """
        start = prefix.strip("/") + "/" if prefix.strip("/") else ""
        paths = [file.path for file in self.files if file.path.startswith(start)]
        if not paths:
            raise DataError(f"source {self.name} ({self.uri}) has nothing below {prefix!r}")
        temporary = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        for path in paths:
            target = temporary / path.removeprefix(start)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.fetch(store, path, cache), target)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)
        return folder


def fetch(
    uri: str, sha256: str, store: ObjectStore | None, *, cache: Path = CACHE, version_id: str | None = None
) -> Path:
    """A local file with content `sha256`: the source's own file when local, else the cached download.

    Raises:
        DataError: a local file is missing or not what was pinned.
        StorageError: the object can't be read, or is not what was pinned.
    """
    if not uri.startswith("s3://"):
        path = Path(uri.removeprefix("file://"))
        if not path.is_file():
            raise DataError(f"{uri}: file not found; restore it or pin the source again with {_HOW_TO_PIN}")
        found = _digest(path)
        if found != sha256:
            raise DataError(
                f"{uri}: content has changed since it was pinned (sha256 {found[:12]}, expected"
                f" {sha256[:12]}); restore it or pin again with {_HOW_TO_PIN}"
            )
        return path
    path = cache / sha256[:2] / sha256
    if path.is_file():
        if _digest(path) == sha256:
            return path
        logger.warning("%s: the kept download %s is damaged, reading the object again", uri, path)
    if store is None:
        raise DataError(f"{uri}: no object store was given to read it from")
    return store.download(uri, path, version_id=version_id, sha256=sha256)


class _Stored(Protocol):
    @property
    def uri(self) -> str: ...
    @property
    def sha256(self) -> str: ...


def fetch_all(items: Sequence[_Stored], store: ObjectStore | None, *, cache: Path = CACHE) -> Iterator[Path]:
    """Local files of items, in their order, fetched some way ahead; raises as `fetch`."""

    def get(item: _Stored) -> Path:
        return fetch(item.uri, item.sha256, store, cache=cache)

    with ThreadPoolExecutor(_THREADS) as pool:
        ahead: deque[Future[Path]] = deque()
        try:
            for item in items:
                ahead.append(pool.submit(get, item))
                if len(ahead) >= _PREFETCHED:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def pin(
    name: str, uri: str, store: ObjectStore | None, *, previous: Lock | None = None, cache: Path = CACHE
) -> Lock:
    """Lists and hashes a source, reading each file once.

    Objects whose version id and size are as in `previous` are not read again: a version never changes. What
    is read from S3 is kept in the cache for the stages.

    Args:
        name: of the source.
        uri: `s3://bucket/prefix`, `file://…` or a local folder.
        store: needed for `s3://`.
        previous: the lock of before, if any.
        cache: folder of downloads by hash.

    Raises:
        DataError: the source is empty or not a folder, or an object's key leads out of it.
        StorageError: the bucket can't be read.
    """
    known = {file.path: file for file in previous.files} if previous and previous.uri == uri else {}
    if uri.startswith("s3://"):
        if store is None:
            raise DataError(f"{uri}: no object store was given to read it from")
        base = uri.rstrip("/") + "/"
        objects = [item for item in store.list(base) if not item.uri.endswith("/")]
        outside = _first_outside(item.uri.removeprefix(base) for item in objects)
        if outside is not None:
            raise DataError(
                f"source {name}: the key {outside!r} below {uri} is not a plain path (no `..`, `.` or empty"
                " part, no leading `/`); rename or delete the object"
            )

        def lock_object(item: Any) -> SourceFile:
            path, version = item.uri.removeprefix(base), item.version_id
            old = known.get(path)
            if old and version and (old.version_id, old.bytes) == (version, item.size):
                return old
            fresh = cache / f"new-{os.urandom(8).hex()}"
            store.download(item.uri, fresh, version_id=version)
            size, digest = fresh.stat().st_size, _digest(fresh)
            kept = cache / digest[:2] / digest
            kept.parent.mkdir(parents=True, exist_ok=True)
            fresh.replace(kept)
            return SourceFile(path, size, digest, version)

        with ThreadPoolExecutor(_THREADS) as pool:
            files = list(pool.map(lock_object, objects))
    else:
        root = Path(uri.removeprefix("file://"))
        if not root.is_dir():
            raise DataError(f"source {name}: {uri} is not a folder; set sources.{name} in params.yaml")
        paths = [path for path in sorted(root.rglob("*")) if path.is_file()]
        with ThreadPoolExecutor(_THREADS) as pool:
            digests = list(pool.map(_digest, paths))
        files = [
            SourceFile(path.relative_to(root).as_posix(), path.stat().st_size, digest, None)
            for path, digest in zip(paths, digests, strict=True)
        ]
    if not files:
        raise DataError(
            f"source {name}: nothing lies below {uri}; upload the raw tree first (`erv sample-data --upload`)"
        )
    return Lock(name, uri, tuple(sorted(files, key=lambda file: file.path)))


def store_for(uris: Iterable[str]) -> ObjectStore | None:
    """The store of the workspace's environment, or None when every uri is local.

    Raises:
        StorageError: a uri is in S3 and no endpoint is configured.
    """
    if not any(uri.startswith("s3://") for uri in uris):
        return None
    from erv.environment import load_environment
    from erv.storage import open_store

    store: ObjectStore = open_store(load_environment())
    return store


def _first_outside(paths: Iterable[str]) -> str | None:
    """The first path that is not plain: joined to a folder it could name a file outside of it."""
    return next((path for path in paths if not {"", ".", ".."}.isdisjoint(path.split("/"))), None)


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
