"""The clips of the served folder that a page can pick."""

from __future__ import annotations

import mimetypes
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
        ClipError: it is not one that may be read, or no video by its name: of other files, lists say whose
            faces these are, and pages would run as ours.
    """
    if "://" in name or not is_video(name) or is_junk(name):
        raise ClipError("no such file below the served folder")
    return clips.file_of(ClipInput(name), 0, Path("unused"))


def media_type_of(name: str) -> str:
    """What a clip is sent as: a video, whatever a link of that name leads to."""
    found, _ = mimetypes.guess_type(name)
    return found if found is not None and found.startswith("video/") else "application/octet-stream"


def _videos(folder: Path) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        folders.sort()
        for file in sorted(files):
            path = Path(place) / file
            name = os.path.relpath(path, folder)
            if not is_video(name) or is_junk(name):
                continue
            # A name that is not UTF-8 can't be asked for, nor what a link names elsewhere.
            if name.isprintable() and path.resolve().is_relative_to(folder):
                yield name
