"""Folders of frames: the images of a clip as one entry with one digest.

A data set of 16,000 clips as images has more than a million files, so the lock lists folders instead. Content
is still verified: a folder's digest covers the name and digest of each image directly inside it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from erv.errors import DataError
from erv.files import scratch_folder, sha256_of_file, sha256_of_text
from erv.sources.selection import is_image, is_junk
from erv.sources.threads import Progress


@dataclass(frozen=True)
class Frames:
    """A folder's entry in the lock: aggregate sha256, total size in bytes, number of images."""

    sha256: str
    bytes: int
    count: int


def is_frame(name: str) -> bool:
    """Whether a file directly inside a folder of frames is a frame."""
    return is_image(name) and not is_junk(name)


def aggregate(digests: Mapping[str, str], what: str) -> str:
    r"""Hex sha256 over the sorted lines `name sha256\n`.

    Args:
        digests: hex sha256 by name.
        what: the folder, for messages.

    Raises:
        DataError: a name holds a line break, which would make the lines ambiguous.
    """
    broken = [name for name in digests if "\n" in name or "\r" in name]
    if broken:
        raise DataError(f"{what}: the name {broken[0]!r} holds a line break; rename the file")
    lines = (f"{name} {digests[name]}\n" for name in sorted(digests))
    return sha256_of_text("".join(lines))


def hash_folder(folder: Path, what: str, progress: Progress | None = None) -> Frames:
    """Hashes the images directly inside a local folder.

    Raises:
        DataError: a name holds a line break.
        OSError: an image can't be read.
    """
    images = sorted(path for path in folder.iterdir() if is_frame(path.name) and path.is_file())
    return hash_images(((path.name, path) for path in images), what, progress)


def hash_images(images: Iterable[tuple[str, Path]], what: str, progress: Progress | None = None) -> Frames:
    """Hashes images given by name and place; raises as `hash_folder`."""
    digests, size = {}, 0
    for name, path in images:
        digests[name] = sha256_of_file(path, progress.read if progress else None)
        size += path.stat().st_size
    return Frames(aggregate(digests, what), size, len(digests))


def collect(target: Path, sha256: str, what: str, fill: Callable[[Path], None]) -> Path:
    """Makes a folder of frames appear complete and verified, or not at all.

    Args:
        target: its path.
        sha256: the aggregate digest it must have.
        what: the folder's uri, for messages.
        fill: writes the images into an empty folder.

    Raises:
        DataError: the images differ from the pinned ones.
    """
    # Not `whole_folder`: a folder of the same content that another process brought meanwhile stays.
    with scratch_folder(target, shared=True) as temporary:
        fill(temporary)
        check(hash_folder(temporary, what), sha256, what)
        _move(temporary, target, sha256, what)
    return target


def check(found: Frames, sha256: str, what: str) -> None:
    """Raises DataError when images differ from the pinned ones."""
    if found.sha256 != sha256:
        raise DataError(
            f"{what}: content has changed since it was pinned (its {found.count} images have sha256"
            f" {found.sha256[:12]}, expected {sha256[:12]}); restore it or pin again with `erv data pin`"
        )


def keep(folder: Path, cache: Path, what: str) -> Frames:
    """Hashes a folder that was just read and moves it to where `collect` would put it."""
    frames = hash_folder(folder, what)
    _move(folder, place(cache, frames.sha256), frames.sha256, what)
    return frames


def place(cache: Path, sha256: str) -> Path:
    """Where content is kept in the cache, a file or a folder of frames."""
    return cache / sha256[:2] / sha256


def _move(folder: Path, target: Path, sha256: str, what: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # Another process may have fetched the same folder meanwhile; a damaged one is replaced.
    if target.is_dir() and hash_folder(target, what).sha256 != sha256:
        shutil.rmtree(target, ignore_errors=True)
    try:
        folder.replace(target)
    except OSError:
        if not target.is_dir():
            raise
