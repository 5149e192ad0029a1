"""Reads the files of a pinned source where they are, and compares their content with the lock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from erv.errors import DataError, StorageError

if TYPE_CHECKING:
    from erv.sources import Lock, SourceFile
    from erv.sources.threads import Progress
    from erv.storage.store import Store

_SHOWN = 12  # digits of a hash


@dataclass(frozen=True)
class Content:
    """What reading the files of a source showed.

    Attributes:
        faults: what is wrong with the content, by path, in the order of the lock.
        unread: why some files can't be read; empty if all were.
    """

    faults: Mapping[str, str]
    unread: str


def read_content(lock: Lock, files: Sequence[SourceFile], store: Callable[[], Store]) -> Content:
    """Streams these files, keeps nothing, and compares the SHA-256 of each with the lock.

    No cache is asked: it may hold what the source no longer has. Members of a zip are not unpacked, since
    the hash of their zip covers them.

    Args:
        lock: of the source.
        files: entries of it that are there.
        store: opens the object store; called only for a source in a bucket.
    """
    from erv.sources.threads import Progress, in_order

    chosen = [file for file in files if not file.archive]
    faults: dict[str, str] = {}
    unread: list[str] = []
    with closing(Progress(f"verify {lock.name}")) as progress:
        progress.begin(len(chosen))
        looks = in_order(lambda file: _look(lock, file, store, progress), chosen, progress)
        try:
            for file, (fault, why) in zip(chosen, looks, strict=True):
                if fault:
                    faults[file.path] = fault
                if why:
                    unread.append(why)
        except StorageError as error:  # of the store, not of one object: the others would fail alike
            unread.append(str(error))
    return Content(faults, unread[0] if unread else "")


def _look(lock: Lock, file: SourceFile, store: Callable[[], Store], progress: Progress) -> tuple[str, str]:
    """The fault of a file, and why it can't be read; both are empty if its content is the pinned one.

    Raises:
        StorageError: the store can't be read.
    """
    from erv.storage.errors import ObjectError

    try:
        found = _digest(lock, file, store, progress)
    except (DataError, ObjectError) as error:
        return str(error), ""
    except OSError as error:
        return "", f"{error.filename or lock.uri_of(file.path)}: {error.strerror or error}"
    finally:
        progress.done()
    if found == file.sha256:
        return "", ""
    return f"sha256 {found[:_SHOWN]}, pinned {file.sha256[:_SHOWN]}", ""


def _digest(lock: Lock, file: SourceFile, store: Callable[[], Store], progress: Progress) -> str:
    """The SHA-256 of a file, or of a folder of frames, as the lock has it."""
    from erv.files import sha256_of_file
    from erv.sources.fetching import is_remote, local_root
    from erv.sources.frame_folders import aggregate, hash_folder, is_frame

    uri = lock.uri_of(file.path)
    if not is_remote(lock.uri):
        path = local_root(lock.uri) / file.path
        if file.frames:
            return hash_folder(path, uri, progress).sha256
        return sha256_of_file(path, progress.read)
    if not file.frames:
        return store().sha256(uri, file.version_id, progress.read)
    listed = {item.uri.removeprefix(uri): item for item in store().list(uri)}
    frames = {name: item for name, item in listed.items() if "/" not in name and is_frame(name)}
    return aggregate(
        {name: store().sha256(item.uri, item.version_id, progress.read) for name, item in frames.items()}, uri
    )
