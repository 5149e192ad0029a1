"""Finds where an official tree starts in a source: at the top, or some folders down."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from erv.errors import DataError
from erv.ingest.readers.reading import Check, some
from erv.sources import Lock, ObjectStore


@dataclass(frozen=True)
class Layout:
    """How a tree is recognised.

    Attributes:
        title: of the data set, for messages.
        marker: regular expression for the end of paths that only this tree has.
        example: such a file.
        holds: what the root folder of the tree contains.
        reader: its name in `ingest.readers`.
    """

    title: str
    marker: str
    example: str
    holds: str
    reader: str


MAFW = Layout(
    "MAFW",
    r"Train & Test Set/(?:single|compound)/(?:no|with)_caption/set_\d+/(?:train|test)\.txt",
    "Train & Test Set/single/no_caption/set_1/train.txt",
    "`Train & Test Set`, `Labels` and the clips",
    "mafw",
)
DFEW = Layout(
    "DFEW",
    r"(?:EmoLabel_DataSplit/(?:train|test)\(single-labeled\)/set_\d+|label/single_(?:train|test)set_\d+)\.csv",
    "EmoLabel_DataSplit/train(single-labeled)/set_1.csv` or `label/single_trainset_1.csv",
    "`EmoLabel_DataSplit` or `label`, and the clips",
    "dfew",
)
RAVDESS = Layout(
    "RAVDESS",
    r"0[123](?:-\d\d){6}\.(?i:mp4)",
    "Actor_01/01-01-01-01-01-01-01.mp4",
    "the folders `Actor_NN`",
    "ravdess",
)
OFFICIAL = (MAFW, DFEW, RAVDESS)


@dataclass(frozen=True)
class Tree:
    """An official tree in a source; `prefix` is empty or ends with a slash."""

    lock: Lock
    store: ObjectStore | None
    prefix: str

    def __contains__(self, path: str) -> bool:
        return self.prefix + path in self.lock

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """Everything in the tree, relative to its root, sorted."""
        start = len(self.prefix)
        return tuple(sorted(f.path[start:] for f in self.lock.files if f.path.startswith(self.prefix)))

    def full(self, path: str) -> str:
        """The path in the source of a path in the tree."""
        return self.prefix + path

    def read(self, path: str) -> bytes:
        """A file's content; raises as `Lock.read`."""
        return self.lock.read(self.store, self.full(path))

    def matching(self, pattern: str) -> list[re.Match[str]]:
        """Full matches of a regular expression with paths of the tree."""
        search = re.compile(pattern)
        return [match for path in self.paths if (match := search.fullmatch(path))]

    def once(self, pattern: str) -> dict[str, str]:
        """Paths in the source of the clips that match an expression, in any case, by its first group.

        Raises:
            DataError: two paths are the same clip.
        """
        found: dict[str, str] = {}
        for match in self.matching(f"(?i){pattern}"):
            path = self.full(match[0])
            if match[1] in found:
                raise DataError(
                    f"{self.lock.name}: {found[match[1]]!r} and {path!r} are the same clip; remove one of"
                    " them"
                )
            found[match[1]] = path
        return found

    def required(self, candidates: Sequence[str], what: str) -> str:
        """The first of some paths that the tree has.

        Raises:
            DataError: it has none of them.
        """
        for path in candidates:
            if path in self:
                return path
        raise DataError(
            f"{self.lock.name}: {what} not found in {self.lock.uri}; expected"
            f" {' or '.join(repr(self.full(path)) for path in candidates)}; complete the source and pin it"
            " again with `erv data pin`"
        )

    def check(self) -> Check:
        """A check that reports where the tree starts, if not at the top."""
        found = f"its tree begins at {self.prefix!r}" if self.prefix else "its tree begins at the top"
        return Check("root", True, "warning", "an official tree at the top or in one folder below", found)


def locate(lock: Lock, store: ObjectStore | None, layout: Layout) -> Tree:
    """Finds the root of a tree by its marker files.

    Raises:
        DataError: there is none, there are several, or the source holds another data set.
    """
    roots = _roots(lock, layout)
    if "" in roots:
        return Tree(lock, store, "")
    if len(roots) == 1:
        return Tree(lock, store, roots.pop())
    setting = f"set sources.{lock.name} to"
    if roots:
        raise DataError(
            f"{lock.name}: {lock.uri} holds {len(roots)} trees of {layout.title}: {some(roots)};"
            f" {setting} the one that counts and pin it again with `erv data pin`"
        )
    refuse_others(lock, layout)
    raise DataError(
        f"{lock.name}: no tree of {layout.title} in {lock.uri}: expected `{layout.example}`, found at its top"
        f" {top_of(lock)}; {setting} the folder that holds {layout.holds}, and pin it with `erv data pin`"
    )


def refuse_others(lock: Lock, layout: Layout) -> None:
    """Raises DataError when the source holds the tree of another official data set."""
    for other in OFFICIAL:
        if other is not layout and _roots(lock, other):
            raise DataError(
                f"{lock.name}: {lock.uri} holds {other.title}, expected {layout.title} (`{layout.example}`);"
                f" set sources.{lock.name} to the folder of {layout.title}, or ingest.readers.{lock.name} to"
                f" `reader: {other.reader}`"
            )


def top_of(lock: Lock) -> str:
    """The first names at the top of a source, for a message."""
    names = {file.path.partition("/")[0] + "/" * ("/" in file.path) for file in lock.files}
    return some(names) or "nothing"


def _roots(lock: Lock, layout: Layout) -> set[str]:
    pattern = re.compile(rf"((?:.+/)?){layout.marker}")
    return {match[1] for file in lock.files if (match := pattern.fullmatch(file.path))}
