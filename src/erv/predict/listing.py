"""Which clips are asked about: the videos below a folder, or the clips of a manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from erv.errors import DataError
from erv.files import sha256_of_file
from erv.manifest import read_manifest
from erv.sources import LOCKS, Lock, fetch_all
from erv.sources.selection import is_junk, is_video
from erv.sources.store import store_for


@dataclass(frozen=True)
class ListedClip:
    """A clip to ask about.

    Attributes:
        name: its id, or its path below the folder.
        sha256: of its content.
        fault: why it can't be asked about; None if it can.
    """

    name: str
    sha256: str
    fault: str | None = None


@dataclass(frozen=True)
class Listing:
    """Clips in the order of their names.

    Attributes:
        clips: at least one.
        left_out: files below the folder that are no videos by their ending.
        files: gives the local files of the clips with these positions, in order; may fetch them.
    """

    clips: tuple[ListedClip, ...]
    left_out: int
    files: Callable[[Sequence[int]], Iterator[Path]]


def list_clips(source: Path) -> Listing:
    """The clips of a folder of videos, or of a manifest (`data/manifest/NAME.parquet`).

    Raises:
        DataError: there is neither, it has no clips, or the manifest has no lock.
    """
    if source.is_dir():
        return _of_folder(source)
    if source.suffix == ".parquet":
        return _of_manifest(source)
    raise DataError(f"{source}: neither a folder of videos nor a manifest (data/manifest/NAME.parquet)")


def _of_folder(folder: Path) -> Listing:
    below = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    names = sorted(name for name in below if is_video(name) and not is_junk(name))
    if not names:
        raise DataError(f"{folder}: no videos below this folder, by the endings of their names")
    clips = tuple(ListedClip(name, sha256_of_file(below[name])) for name in names)
    paths = [below[name].resolve() for name in names]
    return Listing(clips, len(below) - len(names), lambda numbers: (paths[number] for number in numbers))


def _of_manifest(path: Path) -> Listing:
    rows = read_manifest(path)
    if not rows:
        raise DataError(f"{path}: lists no clips")
    lock = Lock.load(LOCKS / f"{rows[0].dataset}.lock.json")
    store = store_for([lock.uri])
    clips = tuple(
        ListedClip(
            row.clip_id,
            row.sha256,
            None if row.media == "video" else "a folder of frames has no sound; name the video",
        )
        for row in rows
    )

    def files(numbers: Sequence[int]) -> Iterator[Path]:
        return (found.resolve() for found in fetch_all([rows[number] for number in numbers], lock, store))

    return Listing(clips, 0, files)
