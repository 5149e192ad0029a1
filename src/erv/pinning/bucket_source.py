"""A source in an object store: its objects and their digests."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from erv.errors import DataError
from erv.files import scratch_folder, sha256_of_file, sha256_of_text, temporary_name
from erv.pinning.journal import Journal
from erv.sources.fetching import ObjectStore
from erv.sources.frame_folders import Frames, keep, place
from erv.sources.lock import SourceFile, first_outside
from erv.sources.threads import Progress


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """An object: path below the source, size in bytes, and the listing's version id and etag."""

    path: str
    bytes: int
    version_id: str | None
    etag: str | None

    @property
    def content_id(self) -> str | None:
        """Changes with the content."""
        return self.version_id or self.etag


class BucketSource:
    """A prefix of a bucket. What it reads goes into the cache, where the stages find it.

    Args:
        name: of the source.
        uri: `s3://bucket/prefix`.
        store: to read from.
        known: files of the previous lock, by path: a version never changes.
        journal: what an interrupted pin has already read.
        cache: folder of content by hash.
        progress: counts what is read.
    """

    def __init__(
        self,
        name: str,
        uri: str,
        store: ObjectStore,
        known: Mapping[str, SourceFile],
        journal: Journal,
        cache: Path,
        progress: Progress,
    ) -> None:
        self._name, self._uri, self._store = name, uri, store
        self._known, self._journal, self._cache, self._progress = known, journal, cache, progress
        # Parts of large objects stay here until the pin is complete.
        self._incoming = cache / "incoming" / _short(f"{name} {uri}")

    def list(self) -> list[RemoteFile]:
        """All objects, sorted by path.

        Raises:
            DataError: a key leads out of the source.
            StorageError: the bucket can't be read.
        """
        base = self._uri.rstrip("/") + "/"
        objects = [item for item in self._store.list(base) if not item.uri.endswith("/")]
        outside = first_outside(item.uri.removeprefix(base) for item in objects)
        if outside is not None:
            raise DataError(
                f"source {self._name}: the key {outside!r} below {self._uri} is not a plain path (no `..`,"
                " `.` or empty part, no leading `/`); rename or delete the object"
            )
        return [
            RemoteFile(item.uri.removeprefix(base), item.size, item.version_id, item.etag) for item in objects
        ]

    def lock_file(self, file: RemoteFile) -> SourceFile:
        """An object with its digest, read unless the digest is known; raises StorageError."""
        old = self._known.get(file.path)
        if old and file.version_id and (old.version_id, old.bytes) == (file.version_id, file.bytes):
            return SourceFile(file.path, file.bytes, old.sha256, file.version_id)
        sha256 = self._journal.find(file.path, file.bytes, file.content_id)
        if sha256 is None:
            sha256 = self._bring(file)
            self._journal.note(file.path, file.bytes, file.content_id, sha256)
        return SourceFile(file.path, file.bytes, sha256, file.version_id)

    def lock_folder(self, folder: str, images: Sequence[RemoteFile]) -> SourceFile:
        """A folder of frames with its digest, read unless that is known. Raises StorageError, DataError."""
        size = sum(image.bytes for image in images)
        version = _versions(images, lambda image: image.version_id)
        old = self._known.get(folder)
        if old and version and (old.version_id, old.bytes, old.frames) == (version, size, len(images)):
            return SourceFile(folder, size, old.sha256, version, frames=len(images))
        content_id = _versions(images, lambda image: image.content_id)
        sha256 = self._journal.find(f"{folder}/", size, content_id)
        if sha256 is None:
            sha256 = self._bring_folder(folder, images).sha256
            self._journal.note(f"{folder}/", size, content_id, sha256)
        return SourceFile(folder, size, sha256, version, frames=len(images))

    def local_copy(self, file: SourceFile) -> Path:
        """The object in the cache, read again if it is not there; raises StorageError."""
        kept = place(self._cache, file.sha256)
        if kept.is_file() and sha256_of_file(kept, self._progress.read) == file.sha256:
            return kept
        return self._store.download(
            self._uri_of(file.path),
            kept,
            version_id=file.version_id,
            sha256=file.sha256,
            size=file.bytes,
            on_bytes=self._progress.read,
        )

    def complete(self) -> None:
        """Drops what was only needed to resume after an interruption."""
        shutil.rmtree(self._incoming, ignore_errors=True)

    def _bring(self, file: RemoteFile) -> str:
        # Not `whole_file`: the name in the cache is the hash, which is known only when the file is here.
        fresh = temporary_name(self._incoming / _short(file.path))
        self._download(file, fresh)
        sha256 = sha256_of_file(fresh)
        kept = place(self._cache, sha256)
        kept.parent.mkdir(parents=True, exist_ok=True)
        fresh.replace(kept)
        return sha256

    def _bring_folder(self, folder: str, images: Sequence[RemoteFile]) -> Frames:
        with scratch_folder(self._incoming / _short(folder), shared=True) as fresh:
            for image in images:
                self._download(image, fresh / image.path.rpartition("/")[2])
            return keep(fresh, self._cache, f"{self._uri}/{folder}")

    def _download(self, file: RemoteFile, target: Path) -> None:
        self._store.download(
            self._uri_of(file.path),
            target,
            version_id=file.version_id,
            size=file.bytes,
            on_bytes=self._progress.read,
        )

    def _uri_of(self, path: str) -> str:
        return f"{self._uri.rstrip('/')}/{path}"


def _versions(images: Sequence[RemoteFile], of: Callable[[RemoteFile], str | None]) -> str | None:
    """A digest of the ids of all images; None if one of them has no id."""
    ids = [(image.path, of(image)) for image in images]
    if any(item is None for _path, item in ids):
        return None
    return sha256_of_text("".join(f"{path} {item}\n" for path, item in sorted(ids)))


def _short(text: str) -> str:
    return sha256_of_text(text)[:16]
