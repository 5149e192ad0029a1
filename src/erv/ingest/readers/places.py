"""Finds listed clips among the files of a source, which may spell their names a little differently.

Cameras and Windows write `.MP4`, macOS decomposes accents (NFD), and spreadsheets drop leading zeros. The
first two name the same clip. The third may name another one, so it is reported, never followed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable
from pathlib import PurePosixPath

from erv.errors import DataError
from erv.sources.selection import is_video


def comparable(path: str) -> str:
    """A path without the differences that do not matter: case and the composition of accents."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def stem(path: str) -> str:
    """A path without the suffix of a video; other suffixes stay."""
    return path[: -len(PurePosixPath(path).suffix)] if is_video(path) else path


class Places:
    """The paths of a source by `comparable`.

    Args:
        paths: of the clips.
        name: of the source, for messages.
    """

    def __init__(self, paths: Iterable[str], name: str) -> None:
        self._name = name
        self._exact = set(paths)
        self._by_key: dict[str, list[str]] = {}
        for path in sorted(self._exact):
            self._by_key.setdefault(comparable(path), []).append(path)

    def find(self, path: str) -> str:
        """The path as the source spells it; `path` itself if the source does not have it.

        Raises:
            DataError: several files differ from it in case or accents alone.
        """
        if path in self._exact:
            return path
        found = self._by_key.get(comparable(path), [])
        if len(found) > 1:
            both = " and ".join(map(repr, found[:2]))
            raise DataError(
                f"{self._name}: {path!r} is listed, and {both} differ from it in"
                " upper and lower case or accents alone; rename or remove all but one"
            )
        return found[0] if found else path


def lookalikes(absent: Collection[str], unlisted: Iterable[str]) -> dict[str, str]:
    """Listed clips that are absent, each with an unlisted file of the same name but for zeros or the suffix.

    Args:
        absent: paths of listed clips that the source lacks.
        unlisted: paths of clips that no list names.

    Returns:
        Path of the file by path of the listed clip.
    """
    there = {_loose(path): path for path in sorted(unlisted)}
    return {path: there[_loose(path)] for path in sorted(absent) if _loose(path) in there}


def _loose(path: str) -> str:
    folder, _, name = comparable(stem(path)).rpartition("/")
    return f"{folder}/{without_zeros(name)}"


def without_zeros(name: str) -> str:
    """A name as a spreadsheet leaves it: a number loses its leading zeros."""
    return re.sub(r"^0+(?=\d+$)", "", name)
