"""Which files of a source are pinned: as they are, as part of a folder of frames, or not at all.

Nothing is left out silently: skipped files are counted, and the lock file and `erv data pin` say how many.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Generic, Literal, Protocol, TypeVar

Kind = Literal["file", "frame", "skipped"]

_IMAGES = {".jpg", ".jpeg", ".png", ".bmp"}
_VIDEOS = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".flv", ".wmv", ".asf"),
    *(".ts", ".mts", ".m2ts", ".3gp", ".ogv", ".vob"),
)
# What macOS and Windows leave behind in folders and zips.
_JUNK_FOLDER = "__MACOSX"
_JUNK_NAMES = {".ds_store", "thumbs.db"}
_EXAMPLES = 3


def is_image(path: str) -> bool:
    """Whether a path names an image by its ending."""
    return PurePosixPath(path).suffix.lower() in _IMAGES


def is_video(path: str) -> bool:
    """Whether a path names a video by its ending, in any case."""
    return PurePosixPath(path).suffix.lower() in _VIDEOS


def is_junk(path: str) -> bool:
    """Whether a file was made by a file manager, not by the people who made the data set."""
    parts = path.split("/")
    return _JUNK_FOLDER in parts or parts[-1].lower() in _JUNK_NAMES or parts[-1].startswith("._")


def folder_of(path: str) -> str:
    """The folder part of a path; empty for a file at the top."""
    return path.rpartition("/")[0]


@dataclass(frozen=True)
class Selection:
    """Which files of a source its reader needs. Regular expressions search the path below the source.

    Upper and lower case are the same to them: cameras write `.MP4`.

    Attributes:
        skip: paths of files that are never needed; they are counted, not read. Where images are aggregated,
            it is searched in an image's folder, ending in `/`, because a folder counts as a whole.
        frames: folders whose images are the frames of a clip.
        aggregate: every image is a frame or is skipped; if False, images are files like any other.
    """

    skip: tuple[str, ...] = ()
    frames: str | None = None
    aggregate: bool = False

    def kind(self, path: str) -> Kind:
        """How a file is treated.

        Args:
            path: relative to the source; for a member of a zip, where unpacking would put it.
        """
        if is_junk(path):
            return "skipped"
        if not (self.aggregate and is_image(path)):
            return "skipped" if self._skips(path) else "file"
        folder = folder_of(path)
        wanted = folder and self.frames is not None and re.search(self.frames, folder, re.IGNORECASE)
        return "frame" if wanted and not self._skips(f"{folder}/") else "skipped"

    def _skips(self, path: str) -> bool:
        return any(re.search(pattern, path, re.IGNORECASE) for pattern in self.skip)


@dataclass
class Skipped:
    """Counts what was skipped, and keeps a few names for messages."""

    files: int = 0
    bytes: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, path: str, size: int) -> None:
        """Counts a file."""
        self.files += 1
        self.bytes += size
        if len(self.examples) < _EXAMPLES:
            self.examples.append(path)

    def counts(self) -> dict[str, int]:
        """The entry as written to a lock."""
        return {"files": self.files, "bytes": self.bytes}


class _Sized(Protocol):
    @property
    def path(self) -> str: ...
    @property
    def bytes(self) -> int: ...


T = TypeVar("T", bound=_Sized)


@dataclass(frozen=True)
class Sorted(Generic[T]):
    """Files of a source by how they are treated; `folders` maps a folder to its images."""

    files: list[T]
    folders: dict[str, list[T]]


def sort_out(items: Iterable[T], selection: Selection, skipped: Skipped) -> Sorted[T]:
    """Sorts files by how they are treated, and counts the ones left out in `skipped`."""
    found: Sorted[T] = Sorted([], {})
    for item in items:
        kind = selection.kind(item.path)
        if kind == "file":
            found.files.append(item)
        elif kind == "frame":
            found.folders.setdefault(folder_of(item.path), []).append(item)
        else:
            skipped.add(item.path, item.bytes)
    return found
