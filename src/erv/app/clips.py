"""The clips of the served folder that a page can pick."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from erv.answering.clips import ClipError, ClipInput, ServedClips
from erv.sources.selection import is_junk, is_video

MOST = 500  # that a page lists


def listed(clips: ServedClips) -> list[str]:
    """Paths of videos below the served folder, by name; at most `MOST`. Links to folders are not followed."""
    if clips.folder is None:
        return []
    found = []
    for name in _videos(clips.folder):
        found.append(name)
        if len(found) == MOST:
            break
    return sorted(found)


def file_of(clips: ServedClips, name: str) -> Path:
    """The file of a clip below the served folder.

    Raises:
        ClipError: it is not one that may be read.
    """
    if "://" in name:
        raise ClipError("no such file below the served folder")
    return clips.file_of(ClipInput(name), 0, Path("unused"))


def _videos(folder: Path) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        folders.sort()
        for file in sorted(files):
            if is_video(file) and not is_junk(file):
                path = Path(place) / file
                name = os.path.relpath(path, folder)
                # A name that is not UTF-8 can't be asked for, nor what a link names elsewhere.
                if name.isprintable() and path.resolve().is_relative_to(folder):
                    yield name
