"""Pinning: reads a source once and lists its files with their hashes."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from erv.environment import SAMPLE_UPLOAD, sample_remedy
from erv.errors import DataError
from erv.files import sweep
from erv.pinning.bucket_source import BucketSource
from erv.pinning.folder_source import FolderSource
from erv.pinning.journal import Journal
from erv.sources.archives import Archive, Member, is_zip, refuse_split
from erv.sources.fetching import CACHE, ObjectStore, is_remote, need
from erv.sources.frame_folders import aggregate
from erv.sources.lock import Lock, SourceFile
from erv.sources.selection import Selection, Skipped, folder_of, sort_out
from erv.sources.threads import Progress, in_order

logger = logging.getLogger(__name__)


class Source(Protocol):
    """A folder or a bucket prefix; it lists items with path and bytes."""

    def list(self) -> list[Any]:
        """All files, sorted by path."""

    def lock_file(self, file: Any) -> SourceFile:
        """A file with its digest."""

    def lock_folder(self, folder: str, images: Any) -> SourceFile:
        """A folder of frames with its digest."""

    def local_copy(self, file: SourceFile) -> Path:
        """A file on this machine with the content that was locked."""


def pin(
    name: str,
    uri: str,
    store: ObjectStore | None,
    *,
    selection: Selection | None = None,
    previous: Lock | None = None,
    cache: Path = CACHE,
    journal: Path | None = None,
    allowed_roots: Sequence[str] = (),
) -> Lock:
    """Lists and hashes a source and the members of its zips, reading each file once.

    Objects whose version id and size match `previous` are not read again: a version never changes. Objects
    read from S3 stay in the cache for the stages. What killed processes left there is removed.

    Args:
        name: of the source.
        uri: `s3://bucket/prefix`, `file://…` or a local folder.
        store: needed for `s3://`.
        selection: what its reader needs of the source; everything if omitted.
        previous: the previous lock, if any.
        cache: folder of content by hash.
        allowed_roots: folders outside a local source that its links may lead to.
        journal: file that lets an interrupted pin of `s3://` resume; delete it once the lock is saved.

    Raises:
        DataError: the source is empty, not a folder or can't be read, a name or link leads out of it, a zip
            is damaged or unsafe to read, or two files would have the same path.
        StorageError: the bucket can't be read.
    """
    selection = selection or Selection()
    known = previous.by_path if previous and previous.uri == uri else {}
    try:
        with closing(Progress(f"source {name}")) as progress:
            if not is_remote(uri):
                return _pin(
                    name, uri, FolderSource(name, uri, progress, allowed_roots), selection, known, progress
                )
            sweep(cache)
            with Journal(journal, uri) as notes:
                source = BucketSource(name, uri, need(store, uri), known, notes, cache, progress)
                lock = _pin(name, uri, source, selection, known, progress)
                source.complete()
            return lock
    except OSError as error:
        raise DataError(
            f"source {name}: {error.filename or uri}: {error.strerror or error}; fix it and pin again"
        ) from error


def _pin(
    name: str,
    uri: str,
    source: Source,
    selection: Selection,
    known: Mapping[str, SourceFile],
    progress: Progress,
) -> Lock:
    skipped = Skipped()
    listed = source.list()
    if not listed:
        ours = f"s3://erv-raw/{name}"
        upload = sample_remedy(command=SAMPLE_UPLOAD) if uri.rstrip("/") == ours else None
        sample = f" ({upload}: the sample corpus)" if upload else ""
        raise DataError(
            f"source {name}: there is nothing below {uri}; correct sources.{name} in params.yaml, or put the"
            f" tree there{sample}"
        )
    found = sort_out(listed, selection, skipped)
    for file in found.files:
        refuse_split(file.path, f"{uri.rstrip('/')}/{file.path}")
    progress.begin(len(found.files) + len(found.folders))

    def lock_file(file: Any) -> SourceFile:
        locked = source.lock_file(file)
        progress.done()
        return locked

    def lock_folder(folder: str) -> SourceFile:
        locked = source.lock_folder(folder, found.folders[folder])
        progress.done()
        return locked

    files = list(in_order(lock_file, found.files, progress))
    members = [
        member
        for file in files
        if is_zip(file.path)
        for member in _members(source, file, uri, selection, skipped, known, progress)
    ]
    files += in_order(lock_folder, found.folders, progress)
    files += members
    if not files:
        raise DataError(
            f"source {name}: all {skipped.files:,} files below {uri} are of kinds its reader does not"
            f" need ({', '.join(skipped.examples)}, …); check sources.{name} and ingest.readers.{name}"
        )
    _refuse_collisions(files, name, uri)
    ordered = tuple(sorted(files, key=lambda file: file.path))
    return Lock(name, uri, ordered, skipped.counts(), None if selection == Selection() else selection)


def _members(
    source: Source,
    zipped: SourceFile,
    uri: str,
    selection: Selection,
    skipped: Skipped,
    known: Mapping[str, SourceFile],
    progress: Progress,
) -> list[SourceFile]:
    """The members of a zip with their digests, streamed; those of an unchanged zip come from the old lock."""
    what = f"{uri.rstrip('/')}/{zipped.path}"
    old = known.get(zipped.path)
    same = old is not None and old.sha256 == zipped.sha256
    with Archive(source.local_copy(zipped), what, zipped.path) as archive:
        if not archive.members:
            logger.warning("%s: an empty zip", what)
        found = sort_out(archive.members, selection, skipped)
        progress.begin(len(found.files) + len(found.folders))

        def lock_member(member: Member) -> SourceFile:
            before = known.get(member.path) if same else None
            if before and (before.archive, before.member) == (zipped.path, member.name):
                return before
            digest = _digest(archive, member, progress)
            progress.done()
            return SourceFile(member.path, member.bytes, digest, None, zipped.path, member.name)

        def lock_folder(folder: str) -> SourceFile:
            images = found.folders[folder]
            inside = folder_of(images[0].name)
            before = known.get(folder) if same else None
            same_place = before and (before.archive, before.member) == (zipped.path, inside)
            if before and same_place and before.frames == len(images):
                return before
            digests = {image.name.rpartition("/")[2]: _digest(archive, image, progress) for image in images}
            progress.done()
            size = sum(image.bytes for image in images)
            sha256 = aggregate(digests, f"{what}!/{inside}")
            return SourceFile(folder, size, sha256, None, zipped.path, inside, len(images))

        locked = list(in_order(lock_member, found.files, progress))
        locked += in_order(lock_folder, found.folders, progress)
    return locked


def _digest(archive: Archive, member: Member, progress: Progress) -> str:
    digest = hashlib.sha256()
    for chunk in archive.stream(member.name):
        digest.update(chunk)
        progress.read(len(chunk))
    return digest.hexdigest()


def _refuse_collisions(files: Iterable[SourceFile], name: str, uri: str) -> None:
    """Raises DataError when two entries have the same path, or one lies below another that is a file."""
    seen: dict[str, SourceFile] = {}
    for file in files:
        other = seen.setdefault(file.path, file)
        if other is not file:
            raise DataError(
                f"source {name}: {_place(other, uri)} and {_place(file, uri)} are both {file.path!r} once"
                " zips are unpacked; keep one of them in the source"
            )
    for file in files:
        folder = folder_of(file.path)
        while folder:
            above = seen.get(folder)
            if above is not None and above.frames is None:
                raise DataError(
                    f"source {name}: {_place(above, uri)} is a file and {_place(file, uri)} lies below it"
                    " once zips are unpacked; rename one of them"
                )
            folder = folder_of(folder)


def _place(file: SourceFile, uri: str) -> str:
    return f"{uri.rstrip('/')}/" + (f"{file.archive}!/{file.member}" if file.archive else file.path)
