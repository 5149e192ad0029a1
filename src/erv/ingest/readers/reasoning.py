"""Reasoning sets for the cold start: explanations of emotion with their own clips.

The files determine the format: R1-Omni (JSON), EMER v1 or v2 (CSV), MERR (JSON). Labels are names of the data
set's label space; all clips are for training.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from erv.errors import DataError
from erv.ingest.readers import emer, merr, r1_omni
from erv.ingest.readers.encoding import damage
from erv.ingest.readers.explanations import Explained
from erv.ingest.readers.reading import Check, Excluded, Listed, Reading, first_clips, gather, some
from erv.ingest.readers.tabular import csv_records, json_document
from erv.ingest.readers.tree import Tree, top_of
from erv.ingest.readers.videos import match
from erv.labels import LabelSpace
from erv.prompts import TAGS, format_completion
from erv.settings.ingest import ReasoningReader
from erv.sources import Lock, ObjectStore
from erv.sources.selection import Selection, is_video

_DEEPEST = 3  # how many folders deep to look for tables
_MOST = 50  # tables to open; a tree with more has one per clip
_SPLIT = "no official split: all clips are for training"


@dataclass(frozen=True)
class _Shape:
    title: str
    fits: Callable[[object], bool]
    rows: Callable[[Tree, str, object], tuple[list[Explained], list[Check]]]


_JSON = (
    _Shape("R1-Omni JSON", r1_omni.fits, r1_omni.rows),
    _Shape("MERR", merr.fits, merr.rows),
)
_CSV = (
    _Shape("EMER v1", emer.fits_v1, emer.rows_v1),
    _Shape("EMER v2", emer.fits_v2, emer.rows_v2),
)


def selection(settings: ReasoningReader) -> Selection:
    """All but images."""
    return Selection(aggregate=True)


def read(dataset: str, lock: Lock, store: ObjectStore | None) -> Reading:
    """Reads the set, which has no folds.

    Args:
        dataset: its name, and that of its label space.
        lock: the pinned source.
        store: for sources in an object store.

    Raises:
        DataError: there is no table in a known format, or several, or it is malformed.
    """
    space = LabelSpace.load(dataset)
    tree = Tree(lock, store, "")
    path, shape, head, note = _table(tree)
    rows, checks = shape.rows(tree, path, head)
    if not rows:
        raise DataError(f"{path}: lists no clip; fetch the file again")
    videos = [file.path for file in lock.files if is_video(file.path)]
    matched = match(rows, videos)
    items, excluded, completions, subtitles = [], [], {}, {}
    for clip_id, row in zip(matched.ids, rows, strict=True):
        reason = _fault(row, space)
        if reason is not None:
            excluded.append(Excluded(clip_id, reason, row.where))
            continue
        label = space.normalize(row.raw) or ""
        items.append(Listed(clip_id, "train", label, row.raw, row.label_from or row.where))
        completions[clip_id] = format_completion(_lines(row.explanation), label)
        if row.subtitle is not None and damage(row.subtitle) is None:
            subtitles[clip_id] = " ".join(row.subtitle.split())
    return gather(
        lock,
        {0: tuple(items)},
        0,
        lambda clip: matched.places.get(clip) or matched.expected.get(clip, f"{clip}.mp4"),
        videos,
        completions=completions,
        subtitles=subtitles,
        split_from=_SPLIT,
        excluded=excluded,
        checks=[note, *checks, _explained_once(rows, matched.ids, excluded), _one_video(matched.unclear)],
    )


def _fault(row: Explained, space: LabelSpace) -> str | None:
    """Why an explanation can't be trained on, or None."""
    if not row.raw:
        return "no label"
    if space.normalize(row.raw) is None:
        return f"its label {row.raw!r} is not an emotion of label space {space.name}"
    if not row.explanation.strip():
        return row.silent or "no explanation"
    if row.fault is not None:
        return row.fault
    if any(tag in row.explanation.lower() for tag in TAGS):
        return "its explanation holds a think or answer tag"
    damaged = damage(row.explanation)
    return None if damaged is None else f"its explanation holds {damaged.what}"


def _lines(explanation: str) -> str:
    """The text with single blanks in a line; line breaks stay, because they end sentences, as of bullets."""
    lines = (" ".join(line.split()) for line in explanation.splitlines())
    return "\n".join(line for line in lines if line)


def _explained_once(rows: Sequence[Explained], ids: Sequence[str], excluded: Sequence[Excluded]) -> Check:
    """Fails where a clip has a row that can be used and one that can't: either may be the right one."""
    unusable = {item.clip_id for item in excluded}
    places: dict[str, list[str]] = {}
    for clip_id, row in zip(ids, rows, strict=True):
        places.setdefault(clip_id, []).append(row.where)
    twice = {clip: f"{clip} ({' and '.join(at)})" for clip, at in places.items() if len(at) > 1}
    twice = {clip: shown for clip, shown in twice.items() if clip in unusable}
    return Check(
        "explained_once",
        not twice,
        "error",
        "one explanation of each clip",
        f"{len(twice)} clips are listed twice, and not both can be used: {some(twice.values())}"
        if twice
        else "one explanation of each clip",
        first_clips(twice),
        "remove all but one" if twice else "",
    )


def _one_video(twice: Mapping[str, list[str]]) -> Check:
    shown = some(f"{' and '.join(videos)}" for videos in twice.values())
    return Check(
        "one_video_per_name",
        not twice,
        "error",
        "one video for each listed name",
        f"{len(twice)} listed names fit several videos" + (f": {shown}" if twice else ""),
        first_clips(twice),
        "remove or rename all but one" if twice else "",
    )


def _table(tree: Tree) -> tuple[str, _Shape, object, Check]:
    """The table of explanations: its path, format, content and a check that names it."""
    tables = [path for path in tree.paths if re.fullmatch(r"(?i).+\.(csv|json)", path)]
    tables = sorted((p for p in tables if p.count("/") <= _DEEPEST), key=lambda p: (p.count("/"), p))
    passed_over = len(tables) - _MOST
    found: dict[str, tuple[_Shape, object]] = {}
    broken: list[str] = []
    for path in tables[:_MOST]:
        content = tree.read(path)  # an unreadable file is not evidence of another kind of table
        try:
            head: object = (
                csv_records(content, path)[0]
                if path.lower().endswith(".csv")
                else json_document(content, path)
            )
        except DataError as error:
            broken.append(str(error))
            continue
        for shape in _CSV if path.lower().endswith(".csv") else _JSON:
            if shape.fits(head):
                found[path] = (shape, head)
    if not found:
        raise DataError(
            f"{tree.lock.name}: no table of explanations in {tree.lock.uri}: expected EMER.csv (names,"
            " emotions, reasons), an EMER v2 CSV (name, english) with labels.csv, MERR_fine_grained.json or"
            " one JSON list of {video, conversations}; found "
            + (f"{some(tables)}, at its top {top_of(tree.lock)}" if tables else top_of(tree.lock))
            + (f" ({broken[0]})" if broken else "")
            + f"; set sources.{tree.lock.name} to the folder that holds it"
        )
    chosen = _preferred(list(found))
    if chosen is None:
        raise DataError(
            f"{tree.lock.name}: several tables of explanations in {tree.lock.uri}:"
            f" {some(f'{path} ({shape.title})' for path, (shape, _) in found.items())}; keep the one that"
            " counts and pin the source again with `erv data pin`"
        )
    shape, head = found[chosen]
    others = sorted(set(found) - {chosen})
    note = Check(
        "explanations",
        not broken,
        "warning",
        "one table of explanations",
        f"{chosen} is read as {shape.title}"
        + (f", {some(others)} left aside" if others else "")
        + (f"; {broken[0]}" if broken else "")
        + (f"; {passed_over} more tables were not looked into" if passed_over > 0 else ""),
        hint="fix or remove the unreadable table" if broken else "",
    )
    return chosen, shape, head, note


def _preferred(paths: list[str]) -> str | None:
    """Picks one table: fine-grained over coarse-grained, English over Chinese."""
    if len(paths) == 1:
        return paths[0]
    for word in ("fine", "eng"):
        best = [path for path in paths if word in PurePosixPath(path).name.lower()]
        rest = {"fine": "coarse", "eng": "chi"}[word]
        others = [path for path in paths if rest in PurePosixPath(path).name.lower()]
        if len(best) == 1 and len(others) == len(paths) - 1:
            return best[0]
    return None
