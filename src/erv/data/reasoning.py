"""The cold-start reasoning set: explanations of emotion with clips of their own.

Two shapes are read: EMER v1 (`EMER.csv` with names, emotions, subtitles, reasons and `video/NAME.mp4`) and
the JSON of R1-Omni (a list of `{"video", "conversations"}`). Labels are MAFW names; all clips are for
training.
"""

from __future__ import annotations

import json
from pathlib import PurePosixPath

from erv.data.reading import Entry, Reading, checked, csv_rows, some
from erv.data.sources import Lock, ObjectStore
from erv.errors import DataError
from erv.labels import LabelSpace
from erv.prompts import format_completion, parse_completion

_TABLE = "EMER.csv"


def read(lock: Lock, store: ObjectStore | None) -> Reading:
    """Reads the set.

    Raises:
        DataError: neither shape is there, a label is no MAFW emotion, an explanation empty, a clip missing.
    """
    space = LabelSpace.load("mafw")
    videos = {
        PurePosixPath(file.path).stem: file.path
        for file in lock.files
        if file.path.endswith((".mp4", ".avi"))
    }
    if _TABLE in lock:
        rows = _emer(lock, store)
    else:
        tables = [file.path for file in lock.files if "/" not in file.path and file.path.endswith(".json")]
        if len(tables) != 1:
            raise DataError(f"reasoning: expected {_TABLE} or one JSON file at the top of {lock.uri}")
        rows = _conversations(lock, store, tables[0])
    unknown = [f"{name} ({raw!r})" for name, raw, _ in rows if space.normalize(raw) is None]
    if unknown:
        raise DataError(
            f"reasoning: {len(unknown)} labels are not emotions of MAFW: {some(unknown)};"
            " give each explanation one of " + ", ".join(space.names)
        )
    silent = [name for name, _, explanation in rows if not explanation]
    if silent:
        raise DataError(f"reasoning: {len(silent)} explanations are empty: {some(silent)}")
    entries = []
    for name, raw, explanation in rows:
        label = space.normalize(raw) or ""
        path = videos.get(name, f"video/{name}.mp4")
        entries.append(
            Entry(name, "train", label, raw, path, completion=format_completion(explanation, label))
        )
    return checked(lock, entries, videos.values())


def _emer(lock: Lock, store: ObjectStore | None) -> list[tuple[str, str, str]]:
    columns = [["names", "name"], ["emotions", "emotion"], ["reasons", "english"]]
    rows = csv_rows(lock.read(store, _TABLE), _TABLE, columns)
    return [(name, emotions, " ".join(reasons.split())) for name, emotions, reasons in rows]


def _conversations(lock: Lock, store: ObjectStore | None, path: str) -> list[tuple[str, str, str]]:
    try:
        items = json.loads(lock.read(store, path))
        spoken = [(PurePosixPath(item["video"]).stem, item["conversations"][-1]["value"]) for item in items]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(f"{path}: not a list of {{video, conversations}} ({error!r})") from error
    rows = []
    for name, text in spoken:
        parsed = parse_completion(text)
        rows.append((name, parsed.answer or "", " ".join((parsed.explanation or "").split())))
    return rows
