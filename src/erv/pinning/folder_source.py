"""A source that is a local folder: its files and their digests."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from erv.errors import DataError
from erv.files import followed, sha256_of_file
from erv.sources.fetching import local_root
from erv.sources.frame_folders import hash_images
from erv.sources.lock import SourceFile
from erv.sources.threads import Progress


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of the folder: path below it, size in bytes."""

    path: str
    bytes: int


class FolderSource:
    """A local folder. Symbolic links within it are followed, and those into the allowed roots.

    Args:
        name: of the source.
        uri: the folder, or `file://…`.
        progress: counts what is read.
        allowed_roots: folders outside the source that links may lead to.
    """

    def __init__(self, name: str, uri: str, progress: Progress, allowed_roots: Sequence[str] = ()) -> None:
        self._name, self._uri, self._progress = name, uri, progress
        self._root = local_root(uri)
        # A root may be a link itself, and the ends of links are compared with it.
        self._allowed = tuple(Path(folder).resolve() for folder in allowed_roots)

    def list(self) -> list[LocalFile]:
        """All files, sorted by path.

        Raises:
            DataError: it is not a folder, or a link leads out of it and of the allowed roots.
            OSError: it can't be read.
        """
        if not self._root.is_dir():
            hint = "the folder that holds it" if self._root.is_file() else "a folder"
            raise DataError(
                f"source {self._name}: {self._uri} is not a folder; set sources.{self._name} in params.yaml"
                f" to {hint} or to s3://bucket/prefix"
            )
        top = self._root.resolve()
        return sorted(self._walk(self._root, "", top, (top,)), key=lambda file: file.path)

    def lock_file(self, file: LocalFile) -> SourceFile:
        """A file with its digest; raises OSError when it can't be read."""
        return SourceFile(file.path, file.bytes, sha256_of_file(self._root / file.path, self._progress.read))

    def lock_folder(self, folder: str, images: Sequence[LocalFile]) -> SourceFile:
        """A folder of frames with its digest; raises OSError when an image can't be read."""
        named = [(image.path.rpartition("/")[2], self._root / image.path) for image in images]
        frames = hash_images(named, f"{self._uri}/{folder}", self._progress)
        return SourceFile(folder, frames.bytes, frames.sha256, frames=frames.count)

    def local_copy(self, file: SourceFile) -> Path:
        """The path of a file."""
        return self._root / file.path

    def _walk(self, folder: Path, prefix: str, top: Path, above: tuple[Path, ...]) -> Iterator[LocalFile]:
        """Files below a folder.

        Args:
            folder: to walk.
            prefix: its path below the source, empty or ending in a slash.
            top: the source's folder, without links.
            above: the folders that lead here, without links, to detect cycles.
        """
        with os.scandir(folder) as entries:
            items = sorted(entries, key=lambda entry: entry.name)
        for entry in items:
            path = f"{prefix}{entry.name}"
            self._check_name(path)
            place = Path(entry.path)
            real = self._follow(place, top) if entry.is_symlink() else above[-1] / entry.name
            facts = real.stat()
            if stat.S_ISDIR(facts.st_mode):
                if real in above:
                    raise DataError(
                        f"source {self._name}: the link {place} leads back to a folder that contains it;"
                        " remove it"
                    )
                yield from self._walk(place, f"{path}/", top, (*above, real))
            elif stat.S_ISREG(facts.st_mode):
                yield LocalFile(path, facts.st_size)
            else:
                raise DataError(
                    f"source {self._name}: {place} is neither a file nor a folder (a pipe, socket or device);"
                    " remove it"
                )

    def _follow(self, link: Path, top: Path) -> Path:
        try:
            real = followed(link)
        except (FileNotFoundError, NotADirectoryError):
            raise DataError(
                f"source {self._name}: the link {link} points to nothing; fix or remove it"
            ) from None
        if not any(real.is_relative_to(root) for root in (top, *self._allowed)):
            raise DataError(
                f"source {self._name}: the link {link} leads out of {self._uri}, to {real}; set"
                f" sources.{self._name} to the place itself, copy what it points to, or name a folder above"
                " that place in machine.allowed_roots"
            )
        return real

    def _check_name(self, path: str) -> None:
        try:
            path.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"source {self._name}: the name {os.fsencode(path)!r} below {self._uri} is not UTF-8;"
                " rename it"
            ) from None
