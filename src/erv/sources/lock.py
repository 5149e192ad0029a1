"""The lock file: the list of a source's files, small enough for git.

It has one line per file, so a diff shows which files changed. The stages depend on it, and every read is
verified against it.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from erv.errors import DataError
from erv.files import whole_folder, write_text
from erv.sources.fetching import CACHE, Fetcher, ObjectStore
from erv.sources.selection import Selection

LOCKS = Path("data/sources")
HOW_TO_PIN = "`erv data pin`"

_SHA256 = re.compile(r"[0-9a-f]{64}")
_OPTIONAL = ("archive", "member", "frames")


@dataclass(frozen=True)
class SourceFile:
    r"""A file of a source, a member of one of its zips, or a folder of frames.

    Attributes:
        path: relative to the source; for a member, where unpacking would put it.
        bytes: size; for a folder of frames, the sum over its images.
        sha256: hex digest of the content; for a folder of frames, of its sorted lines `name sha256\n`.
        version_id: S3's, None where versioning is off; for a folder of frames, a digest of its images' ids.
        archive: path of the zip that holds it, itself a file of the source, or None.
        member: its name inside that zip.
        frames: number of images directly inside a folder of frames; None for a file.
    """

    path: str
    bytes: int
    sha256: str
    version_id: str | None = None
    archive: str | None = None
    member: str | None = None
    frames: int | None = None

    def line(self) -> str:
        """The entry as written to the lock file."""
        values = {name: getattr(self, name) for name in ("path", "bytes", "sha256", "version_id")}
        more = {name: getattr(self, name) for name in _OPTIONAL if getattr(self, name) is not None}
        return json.dumps({**values, **more}, ensure_ascii=False)


def _nothing_skipped() -> dict[str, int]:
    return {"files": 0, "bytes": 0}


@dataclass(frozen=True)
class Lock:
    """A pinned source.

    Attributes:
        name: e.g. `mafw`.
        uri: `s3://bucket/prefix`, or a local folder.
        files: sorted by path.
        skipped: number of `files` and `bytes` in the source that its reader never needs.
        selection: what its reader needed at the time of pinning; None for everything.
    """

    name: str
    uri: str
    files: tuple[SourceFile, ...]
    skipped: Mapping[str, int] = field(default_factory=_nothing_skipped, hash=False)
    selection: Selection | None = None

    @staticmethod
    def load(path: Path) -> Lock:
        """Reads a lock file.

        Raises:
            DataError: it is missing or malformed, or a file's path leads out of the source.
        """
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            files = tuple(SourceFile(**item) for item in raw["files"])
            skipped, chosen = dict(raw.get("skipped", _nothing_skipped())), raw.get("selection")
            selection = Selection(**{**chosen, "skip": tuple(chosen["skip"])}) if chosen else None
            lock = Lock(raw["name"], raw["uri"], files, skipped, selection)
            _check(lock)
        except FileNotFoundError:
            raise DataError(f"{path}: source is not pinned; run {HOW_TO_PIN}") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{path}: not a lock file ({error}); write it again with {HOW_TO_PIN}") from error
        except OutsideError as error:
            raise DataError(
                f"{path}: {str(error)!r} is not a plain path below {lock.uri}; write the lock file again with"
                f" {HOW_TO_PIN}"
            ) from None
        return lock

    def text(self) -> str:
        """The text of the lock file: JSON with one line per file, sorted by path."""
        head: dict[str, Any] = {"name": self.name, "uri": self.uri, "skipped": dict(self.skipped)}
        if self.selection is not None:
            head["selection"] = asdict(self.selection)
        lines = ",\n".join(file.line() for file in sorted(self.files, key=lambda file: file.path))
        return f'{json.dumps(head, ensure_ascii=False)[:-1]}, "files": [\n{lines}\n]}}\n'

    def save(self, path: Path) -> bool:
        """Writes the lock; returns False and leaves the file alone when it already says the same."""
        text = self.text()
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            return False
        write_text(text, path)
        return True

    @cached_property
    def by_path(self) -> dict[str, SourceFile]:
        """Files by path."""
        return {file.path: file for file in self.files}

    @cached_property
    def by_uri(self) -> dict[str, SourceFile]:
        """Files by uri, as a manifest names them."""
        return {self._uri(file): file for file in self.files}

    def __contains__(self, path: str) -> bool:
        return path in self.by_path

    def find(self, path: str) -> SourceFile:
        """The entry of a path; raises DataError when the source has no such file."""
        try:
            return self.by_path[path]
        except KeyError:
            raise DataError(f"source {self.name} ({self.uri}) has no file {path!r}") from None

    def uri_of(self, path: str) -> str:
        """The uri of a file of the source.

        Returns:
            `BASE/x.mp4`; for a member of a zip `BASE/data/clips.zip!/clips/x.mp4`; for a folder of frames the
            same with a slash at the end.

        Raises:
            DataError: there is no such file.
        """
        return self._uri(self.find(path))

    def _uri(self, file: SourceFile) -> str:
        inside = file.path if file.archive is None else f"{file.archive}!/{file.member}"
        return f"{self.uri.rstrip('/')}/{inside}" + ("/" if file.frames and not inside.endswith("/") else "")

    def read(self, store: ObjectStore | None, path: str) -> bytes:
        """A file's content, verified against its sha256; local sources need no store.

        Raises:
            DataError: there is no such file, it is a folder of frames, or it has changed since it was pinned.
            StorageError: the object can't be read.
        """
        if self.find(path).frames:
            raise DataError(f"{self.uri_of(path)} is a folder of frames; expected a file")
        return self.fetch(store, path).read_bytes()

    def fetch(self, store: ObjectStore | None, path: str, cache: Path = CACHE) -> Path:
        """A local file, or folder of frames, with the pinned content.

        Raises:
            DataError: there is no such file, or its content has changed since it was pinned.
            StorageError: the object can't be read, or its content differs from the pinned one.
        """
        file = self.find(path)
        with Fetcher(self, store, cache) as fetcher:
            return fetcher.get(file)

    def fetch_tree(self, store: ObjectStore | None, prefix: str, folder: Path, cache: Path = CACHE) -> Path:
        """Copies all files below `prefix` into a fresh `folder`, keeping their relative paths.

        Returns:
            `folder`.

        Raises:
            DataError: there is nothing below the prefix; otherwise as `fetch`.
        """
        start = prefix.strip("/") + "/" if prefix.strip("/") else ""
        files = [file for file in self.files if file.path.startswith(start)]
        if not files:
            raise DataError(f"source {self.name} ({self.uri}) has nothing below {prefix!r}")
        with whole_folder(folder) as copy, Fetcher(self, store, cache) as fetcher:
            for file in files:
                target = copy / file.path.removeprefix(start)
                target.parent.mkdir(parents=True, exist_ok=True)
                found = fetcher.get(file)
                if file.frames:
                    shutil.copytree(found, target)
                else:
                    shutil.copyfile(found, target)
        return folder


class OutsideError(Exception):
    """A path that is not plain: joined to a folder, it could name a file outside it."""


def first_outside(paths: Iterable[str]) -> str | None:
    """The first path that is not plain."""
    return next(
        (path for path in paths if "\0" in path or not {"", ".", ".."}.isdisjoint(path.split("/"))), None
    )


def _check(lock: Lock) -> None:
    """Refuses a lock that `erv data pin` can't have written; raises ValueError or OutsideError."""
    names = [file.path for file in lock.files] + [file.archive for file in lock.files if file.archive]
    names += [file.member for file in lock.files if file.member]
    outside = first_outside(names)
    if outside is not None:
        raise OutsideError(outside)
    if not (isinstance(lock.name, str) and isinstance(lock.uri, str)):
        raise ValueError("name and uri must be text")
    for file in lock.files:
        fault = _fault(file, lock.by_path)
        if fault:
            raise ValueError(f"{file.path}: {fault}")
    if len(lock.by_path) != len(lock.files):
        raise ValueError("a path occurs twice")


def _fault(file: SourceFile, by_path: Mapping[str, Any]) -> str | None:
    if not isinstance(file.bytes, int) or file.bytes < 0:
        return "bytes must be a whole number from 0"
    # The digest names the file in the cache.
    if not _SHA256.fullmatch(file.sha256):
        return "sha256 must be 64 hex digits"
    if file.frames is not None and (not isinstance(file.frames, int) or file.frames < 1):
        return "frames must be a whole number from 1"
    if (file.archive is None) != (file.member is None):
        return "archive and member belong together"
    if file.archive is not None and file.archive not in by_path:
        return f"its archive {file.archive!r} is not listed"
    if file.member == "" and not file.frames:
        return "member is empty"
    return None
