"""The videos below a folder. Whatever can't be asked about has a row that says why, or is named as skipped.

Links to files are followed if they stay below the folder, or lead to an allowed root. So are links to folders
in an allowed root; what they lead to below the folder itself is listed there.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from erv.answering.clips import LONGEST_NAME
from erv.errors import DataError
from erv.files import followed, sha256_of_file
from erv.predict.listing import AGAIN, ListedClip, Listing, Unread, shown
from erv.sources.selection import is_junk, is_video

_NOT_UTF8 = "its path is not UTF-8; rename it"
_OUT = "a link that leads out of the folder; machine.allowed_roots can name where links may lead"
_NOWHERE = "a link that leads nowhere; mend or remove it"
_LISTED = "a folder whose clips are listed under another name"
_TOO_LONG = f"its path is longer than {LONGEST_NAME} characters, which no version takes; move the folder up"


@dataclass(frozen=True)
class _Video:
    """A video by its name; `fault` says why it can't be asked about, as far as is known without reading."""

    name: str
    path: Path
    fault: str | None = None


@dataclass
class _Below:
    """What is below a folder; `links` are those to folders, with what they lead to."""

    videos: list[_Video] = field(default_factory=list)
    left_out: int = 0
    skipped: list[str] = field(default_factory=list)
    links: list[tuple[str, Path]] = field(default_factory=list)


def of_folder(folder: Path, allowed_roots: Sequence[str] = ()) -> Listing:
    """The videos below a folder, see `erv.predict.listing.list_clips`.

    Raises:
        DataError: there is none.
    """
    top = folder.resolve()
    roots = (top, *(Path(root).resolve() for root in allowed_roots))
    below = _Below()
    seen: set[Path] = set()
    _walk(top, "", roots, seen, below)
    # After the folders themselves, so that what is below the top has its own name, whatever links to it.
    while below.links:
        name, real = min(below.links)
        below.links.remove((name, real))
        if real in seen or real.is_relative_to(top):
            below.skipped.append(f"{shown(name)}: {_LISTED}")
        else:
            _walk(real, f"{name}/", roots, seen, below)
    skipped = tuple(sorted(below.skipped))
    if not below.videos:
        more = f"; not looked into: {'; '.join(skipped[:3])}" if skipped else ""
        raise DataError(f"{shown(folder)}: no videos below this folder, by the endings of their names{more}")
    videos = sorted(below.videos, key=lambda video: (shown(video.name), video.name))
    clips = tuple(map(_listed, videos))

    def files(numbers: Sequence[int]) -> Iterator[Path | Unread]:
        return (_read(videos[number].path, clips[number].sha256) for number in numbers)

    return Listing(clips, below.left_out, files, skipped)


def _walk(folder: Path, prefix: str, roots: Sequence[Path], seen: set[Path], below: _Below) -> None:
    """Adds what is below a folder that has no links in its path; links to folders are left for later."""
    waiting = [(folder, prefix)]
    while waiting:
        folder, prefix = waiting.pop()
        if folder in seen:
            below.skipped.append(f"{shown(prefix)}: {_LISTED}")
            continue
        seen.add(folder)
        try:
            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in entries)
        except OSError as error:
            below.skipped.append(f"{shown(prefix or '.')}: can't be opened ({error.strerror})")
            continue
        for name in names:
            _add(f"{prefix}{name}", folder / name, roots, waiting, below)


def _add(
    name: str, path: Path, roots: Sequence[Path], waiting: list[tuple[Path, str]], below: _Below
) -> None:
    """Adds one entry of a folder that has no links in its path."""
    video = is_video(name) and not is_junk(name)
    try:
        real, mode = _end_of(path, roots)
    except DataError as error:
        if video:
            below.videos.append(_Video(name, path, str(error)))
        else:
            below.skipped.append(f"{shown(name)}: {error}")
        return
    if stat.S_ISDIR(mode) and real == path:
        waiting.append((path, f"{name}/"))
    elif stat.S_ISDIR(mode):
        below.links.append((name, real))
    elif not video:
        below.left_out += 1
    elif not stat.S_ISREG(mode):
        below.videos.append(_Video(name, path, "a pipe, a socket or a device, not a file"))
    else:
        below.videos.append(_Video(name, real, _fault_of_name(name, real)))


def _end_of(path: Path, roots: Sequence[Path]) -> tuple[Path, int]:
    """Where a path leads, and the mode of what is there.

    Raises:
        DataError: it leads nowhere or out of the roots, or may not be looked at; the message is the reason.
    """
    try:
        real = followed(path) if path.is_symlink() else path
        if not any(real.is_relative_to(root) for root in roots):
            raise DataError(_OUT)
        return real, real.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(_NOWHERE) from None
    except OSError as error:
        raise DataError(f"can't be read ({error.strerror})") from None


def _fault_of_name(name: str, real: Path) -> str | None:
    if shown(name) != name or shown(real) != str(real):
        return _NOT_UTF8
    return _TOO_LONG if len(str(real)) > LONGEST_NAME else None


def _listed(video: _Video) -> ListedClip:
    digest, fault = None, video.fault
    if fault is None:
        try:
            digest = sha256_of_file(video.path)
        except OSError as error:
            fault = f"can't be read ({error.strerror})"
    return ListedClip(shown(video.name), digest, fault)


def _read(path: Path, sha256: str | None) -> Path | Unread:
    """The file, if it is still as it was listed."""
    try:
        found = sha256_of_file(path)
    except OSError as error:
        return Unread(
            f"was there when the folder was listed, and can't be read now ({error.strerror}); {AGAIN}"
        )
    return path if found == sha256 else Unread(f"was changed since the folder was listed; {AGAIN}")
