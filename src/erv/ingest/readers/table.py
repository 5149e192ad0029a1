"""Any other data set: a CSV or JSONL table of clips, with the columns that `params.yaml` names.

A label is a name or synonym in the data set's label space, or an id (then all labels must be ids). The split
comes from a column, from the settings for all clips, or from a `fold` column: the fold with the
clip in its test split.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from erv.errors import DataError
from erv.ingest.readers.encoding import encoding_check
from erv.ingest.readers.numbering import ambiguous, fits_both
from erv.ingest.readers.places import Places, comparable
from erv.ingest.readers.reading import Excluded, Listed, Reading, gather, some
from erv.ingest.readers.tabular import column_of, csv_records, jsonl_objects
from erv.ingest.readers.tree import Tree, top_of
from erv.labels import LabelSpace
from erv.manifest import SPLITS
from erv.settings.ingest import TableReader
from erv.sources import Lock, ObjectStore
from erv.sources.selection import Selection, is_video

_MOST_FOLDS = 20


@dataclass(frozen=True, slots=True)
class _Record:
    where: str
    clip: str
    label: str
    split: str | None
    caption: str | None
    fold: int | None
    subtitle: str | None = None


def selection(settings: TableReader) -> Selection:
    """All but images."""
    return Selection(aggregate=True)


def read(dataset: str, lock: Lock, store: ObjectStore | None, settings: TableReader, fold: int) -> Reading:
    """Reads the table.

    Args:
        dataset: its name, and that of its label space.
        lock: the pinned source.
        store: for sources in an object store.
        settings: the table's path and columns.
        fold: the chosen one, if the table has a fold column.

    Raises:
        DataError: the table or one of its lines does not match the settings.
    """
    space = LabelSpace.load(dataset)
    path = _locate(lock, settings)
    records = list(_records(Tree(lock, store, ""), path, settings, f"ingest.readers.{dataset}.columns"))
    if not records:
        raise DataError(f"{path}: lists no clip; expected a line for each")
    labels = _labels(records, space)
    folder = path.rpartition("/")[0]
    places = {record.clip: _place(record, folder) for record in records}
    ids = {clip: place.rpartition(".")[0].removeprefix(f"{folder}/") for clip, place in places.items()}
    spelled = Places((file.path for file in lock.files), lock.name)
    where_is = {ids[clip]: spelled.find(place) for clip, place in places.items()}
    _check_one_file_per_id(path, ids)
    folds = sorted({record.fold for record in records if record.fold is not None})
    if folds and fold not in folds:
        raise DataError(
            f"{path}: no clip of fold {fold} (ingest.fold); its column {settings.columns.fold!r} has"
            f" {', '.join(map(str, folds))}"
        )
    excluded = [
        Excluded(
            ids[record.clip],
            f"its label {record.label!r} is not one of label space {space.name}",
            record.where,
        )
        for record, label in zip(records, labels, strict=True)
        if label is None
    ]
    usable = [(record, label) for record, label in zip(records, labels, strict=True) if label is not None]
    listing = {
        number: tuple(
            Listed(ids[r.clip], _split(r, settings, number), label, r.label, r.where) for r, label in usable
        )
        for number in _folds_to_list(folds, fold)
    }
    captions = {ids[r.clip]: (r.caption, r.where) for r, _ in usable if r.caption}
    return gather(
        lock,
        listing,
        fold if folds else 0,
        where_is.__getitem__,
        [file.path for file in lock.files if is_video(file.path)],
        captions=captions,
        subtitles={ids[r.clip]: r.subtitle for r, _ in usable if r.subtitle},
        checks=[encoding_check({clip: caption for clip, (caption, _) in captions.items()})],
        split_from=None if settings.split is None else f"params.yaml: ingest.readers.{dataset}.split",
        excluded=excluded,
    )


def _folds_to_list(folds: list[int], fold: int) -> list[int]:
    """All folds, for the counts; only the chosen one if there are very many (one per person, say)."""
    if not folds:
        return [0]
    return folds if len(folds) <= _MOST_FOLDS else [fold]


def _locate(lock: Lock, settings: TableReader) -> str:
    """The table's path: as given, or inside the one folder that contains it."""
    if settings.table in lock:
        return settings.table
    found = [file.path for file in lock.files if file.path.endswith(f"/{settings.table}")]
    if len(found) == 1:
        return found[0]
    remedy = f"set ingest.readers.{lock.name}.table to its path below {lock.uri}"
    if found:
        raise DataError(f"{lock.name}: {settings.table!r} lies in several folders: {some(found)}; {remedy}")
    tables = [file.path for file in lock.files if re.fullmatch(r"(?i).+\.(csv|jsonl)", file.path)]
    raise DataError(
        f"{lock.name}: no table {settings.table!r} in {lock.uri}; found"
        f" {some(tables) if tables else 'no .csv or .jsonl, at its top ' + top_of(lock)}; {remedy}"
    )


def _records(tree: Tree, path: str, settings: TableReader, setting: str) -> Iterator[_Record]:
    """The lines of the table; `setting` is the parameter that names its columns."""
    columns = settings.columns
    wanted = {
        key: name
        for key in ("clip", "label", "split", "caption", "subtitle", "fold")
        if (name := getattr(columns, key)) is not None
    }
    content = tree.read(path)
    if path.lower().endswith(".csv"):
        header, lines = csv_records(content, path)
        indexes = {
            key: header.index(
                column_of(header, [name], path, f"set {setting}.{key} to the one that says the {key}")
            )
            for key, name in wanted.items()
        }
        for line, row in lines:
            yield _record(f"{path}:{line}", path, line, {key: row[i] for key, i in indexes.items()}, wanted)
        return
    for line, item in jsonl_objects(content, path):
        for key in ("clip", "label", "split", "fold"):
            if key in wanted and wanted[key] not in item:
                raise DataError(
                    f"{path}, line {line}: no value for {wanted[key]!r}; every clip needs one; found"
                    f" {', '.join(item) or 'no key'}; set {setting}.{key} if another key says the {key}"
                )
        values = {key: item.get(name) for key, name in wanted.items()}
        yield _record(f"{path}:{line}", path, line, values, wanted)


def _record(where: str, path: str, line: int, values: dict[str, Any], wanted: dict[str, str]) -> _Record:
    at = f"{path}, line {line}"
    texts: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (str, int, type(None))):
            raise DataError(f"{at}: {wanted[key]!r} is {value!r}, expected text or a whole number")
        texts[key] = "" if value is None else str(value).strip()
    for key in ("clip", "label", "split", "fold"):
        if key in texts and not texts[key]:
            raise DataError(f"{at}: no value for {wanted[key]!r}; every clip needs one")
    split = texts.get("split")
    if split is not None and split not in SPLITS:
        raise DataError(f"{at}: split {split!r}, expected one of {', '.join(SPLITS)}")
    fold = texts.get("fold")
    if fold is not None and not re.fullmatch(r"[1-9]\d{0,3}", fold):
        raise DataError(f"{at}: fold {fold!r}, expected the number (from 1) of the fold that tests the clip")
    return _Record(
        where,
        texts["clip"],
        texts["label"],
        split,
        texts.get("caption") or None,
        int(fold) if fold else None,
        " ".join(texts.get("subtitle", "").split()) or None,
    )


def _labels(records: list[_Record], space: LabelSpace) -> list[str | None]:
    """The canonical name of each label, None where it is not in the space.

    Raises:
        DataError: an id is out of range, or some labels are ids and some are names.
    """
    numbers = [bool(re.fullmatch(r"\d{1,9}", record.label)) for record in records]
    if all(numbers):
        found: list[str | None] = []
        for record in records:
            try:
                found.append(space.name_of(int(record.label)))
            except DataError as error:
                raise DataError(f"{record.where}: {error}") from error
        ids = {int(record.label) for record in records}
        if fits_both(ids, space):
            path = records[0].where.rpartition(":")[0]
            raise DataError(ambiguous(path, ids, space, "write the labels as names"))
        return found
    mixed = [
        record
        for record, is_number in zip(records, numbers, strict=True)
        if is_number and space.normalize(record.label) is None
    ]
    if mixed:
        raise DataError(
            f"{mixed[0].where}: label {mixed[0].label!r} is a number while others are names"
            f" ({len(mixed)} of {len(records)}); write all labels as names or all as ids of {space.name}"
        )
    return [space.normalize(record.label) for record in records]


def _place(record: _Record, folder: str) -> str:
    """The path of a clip below the source.

    Raises:
        DataError: it leads out of the table's folder, or has no suffix.
    """
    parts = record.clip.split("/")
    if "\\" in record.clip or not {"", ".", ".."}.isdisjoint(parts) or "\0" in record.clip:
        raise DataError(
            f"{record.where}: clip {record.clip!r} is not a plain path below the table's folder; write it"
            " with `/`, without a leading one and without `.` or `..`"
        )
    if not PurePosixPath(record.clip).suffix:
        raise DataError(
            f"{record.where}: clip {record.clip!r} has no suffix; write the file's whole name, e.g."
            f" {record.clip}.mp4"
        )
    return f"{folder}/{record.clip}" if folder else record.clip


def _check_one_file_per_id(path: str, ids: dict[str, str]) -> None:
    """`a.mp4` and `a.avi` would be the same clip, and so would `a.mp4` and `A.mp4` on many machines."""
    seen: dict[str, str] = {}
    for clip, clip_id in ids.items():
        first = seen.setdefault(comparable(clip_id), clip)
        if first == clip:
            continue
        if ids[first] == clip_id:
            raise DataError(
                f"{path}: {first!r} and {clip!r} differ in their suffix alone, and a clip is named"
                " without it; rename one of them"
            )
        raise DataError(
            f"{path}: {first!r} and {clip!r} differ in upper and lower case or accents alone, so they may be"
            " the same clip; write one of them otherwise, or remove it"
        )


def _split(record: _Record, settings: TableReader, fold: int) -> str:
    if record.fold is not None:
        return "test" if record.fold == fold else "train"
    split = record.split or settings.split
    assert split is not None  # the settings say it for all clips or name a column
    return split
