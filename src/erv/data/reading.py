"""What every reader of an official layout hands over, and the checks that all of them share."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from erv.data.sources import Lock
from erv.errors import DataError

_SHOWN = 5


@dataclass(frozen=True)
class Entry:
    """A clip as the official files list it.

    Attributes:
        clip_id: unique in the data set.
        split: train or test.
        label: canonical name.
        raw_label: as written in the file.
        path: of the clip, below the source.
        caption: a human description, or None.
        completion: the target completion of a reasoning clip, or None.
    """

    clip_id: str
    split: str
    label: str
    raw_label: str
    path: str
    caption: str | None = None
    completion: str | None = None


@dataclass(frozen=True)
class Reading:
    """A data set as read: its clips and the videos of the source that no split lists."""

    entries: tuple[Entry, ...]
    unlisted: tuple[str, ...]


def some(names: Iterable[str]) -> str:
    """The first few of many names, for a message."""
    ordered = sorted(names)
    rest = len(ordered) - _SHOWN
    return ", ".join(ordered[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def first_existing(lock: Lock, candidates: Sequence[str], what: str) -> str:
    """The first of some paths that the source has.

    Raises:
        DataError: it has none of them.
    """
    for path in candidates:
        if path in lock:
            return path
    raise DataError(
        f"{lock.name}: {what} not found in {lock.uri}; expected {' or '.join(map(repr, candidates))}"
    )


def checked(lock: Lock, entries: Sequence[Entry], videos: Iterable[str]) -> Reading:
    """Checks that each clip is listed once and exists, and finds the videos that no split lists.

    Raises:
        DataError: a clip in two splits or twice in one, or listed clips that the source lacks.
    """
    splits: dict[str, str] = {}
    for entry in entries:
        before = splits.setdefault(entry.clip_id, entry.split)
        if before != entry.split:
            raise DataError(
                f"{lock.name}: clip {entry.clip_id!r} is in both train and test; the split is not usable"
            )
    if len(splits) != len(entries):
        twice = [clip for clip, count in Counter(entry.clip_id for entry in entries).items() if count > 1]
        raise DataError(f"{lock.name}: listed twice in the same split: {some(twice)}")
    missing = [entry.path for entry in entries if entry.path not in lock]
    if missing:
        raise DataError(
            f"{lock.name}: {len(missing)} of {len(entries)} listed clips are not in {lock.uri}:"
            f" {some(missing)}; complete the source and pin it again with `erv data pin`"
        )
    used = {entry.path for entry in entries}
    return Reading(tuple(entries), tuple(sorted(set(videos) - used)))


def csv_rows(content: bytes, path: str, columns: Sequence[Sequence[str]]) -> list[list[str]]:
    """The named columns of a CSV file with a header.

    Args:
        content: of the file, UTF-8, with or without a byte order mark.
        path: for messages.
        columns: for each wanted column the names that it goes by.

    Raises:
        DataError: not UTF-8, or a column is missing.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason} at byte {error.start})") from error
    rows = csv.DictReader(io.StringIO(text, newline=""))
    found = rows.fieldnames or []
    chosen = []
    for names in columns:
        name = next((name for name in names if name in found), None)
        if name is None:
            raise DataError(f"{path}: no column {names[0]!r}; found {', '.join(found) or 'nothing'}")
        chosen.append(name)
    return [[(row[name] or "").strip() for name in chosen] for row in rows]
