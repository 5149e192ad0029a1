"""Which clips are asked about: the videos below a folder, or the clips of a manifest."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from erv.errors import DataError

AGAIN = "run the same command again"


@dataclass(frozen=True)
class ListedClip:
    """A clip to ask about.

    Attributes:
        name: its id, or its path below the folder, as `shown`.
        sha256: of its content; None if that can't be read.
        fault: why it can't be asked about; None if it can.
        dataset: its data set; None if it is not from one.
        subtitle: what is said in it, if the data set says so.
    """

    name: str
    sha256: str | None
    fault: str | None = None
    dataset: str | None = None
    subtitle: str | None = None


@dataclass(frozen=True)
class Unread:
    """Why a listed clip can't be read now; the next run may find it, so nothing of it is kept."""

    reason: str


@dataclass(frozen=True)
class Listing:
    """Clips in the order of their names.

    Attributes:
        clips: at least one.
        left_out: files below the folder that are no videos by their ending.
        files: gives the local files of the clips with these positions, in order; may fetch them.
        skipped: what below the folder was not looked into, and why, a text each.
    """

    clips: tuple[ListedClip, ...]
    left_out: int
    files: Callable[[Sequence[int]], Iterator[Path | Unread]]
    skipped: tuple[str, ...] = ()


def list_clips(source: Path, allowed_roots: Sequence[str] = ()) -> Listing:
    """The clips of a folder of videos, or of a manifest (`data/manifest/NAME.parquet`).

    Args:
        source: folder or manifest.
        allowed_roots: folders outside a folder of videos that its links may lead to.

    Raises:
        DataError: there is neither, it has no clips, or the manifest and its lock don't belong together.
    """
    if source.is_dir():
        from erv.predict.folder import of_folder

        return of_folder(source, allowed_roots)
    if source.suffix == ".parquet":
        from erv.predict.dataset import of_manifest

        return of_manifest(source)
    raise DataError(
        f"{shown(source)}: neither a folder of videos nor a manifest (data/manifest/NAME.parquet); clips in"
        " S3 are asked about by their manifest"
    )


def shown(path: str | Path) -> str:
    """A path as text that can be written anywhere; bytes that are not UTF-8 become escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
