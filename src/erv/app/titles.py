"""What bundles in folders are called on a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def titles_of(folders: Sequence[Path]) -> list[str]:
    """A name for each of several folders: its own, with as much of the path as tells it from the others.

    A page is no place for more: whoever sees it needn't know where on this machine things are.
    """
    paths = [folder.resolve().parts[1:] for folder in folders]  # without the root
    return [_shortest(path, [other for other in paths if other != path]) for path in paths]


def _shortest(path: tuple[str, ...], others: Sequence[tuple[str, ...]]) -> str:
    """The shortest end of a path that no other path has; all of it if another one ends with it."""
    for length in range(1, len(path)):
        end = path[-length:]
        if not any(other[-length:] == end for other in others):
            return "/".join(end)
    return "/".join(path)
