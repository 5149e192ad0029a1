"""MAFW (Liu et al., ACM MM 2022): the official single-emotion splits.

Labels come from `no_caption/set_N/{train,test}.txt` (`03747.mp4 anger`, CRLF), captions from `with_caption`
(four tab-separated columns in GB18030; UTF-8 fails on it and cp1252 reads it wrongly without a word). Where
`single-set.xlsx` is present, its label ids must agree.
"""

from __future__ import annotations

import io

from erv.data.reading import Entry, Reading, checked, first_existing, some
from erv.data.sources import Lock, ObjectStore
from erv.errors import DataError
from erv.labels import LabelSpace

_SPLITS = "Train & Test Set/single"
_CLIP_FOLDERS = ("data/clips", "clips")
_SHEETS = ("Labels/single-set.xlsx", "Labels/single_set.xlsx")


def read(lock: Lock, store: ObjectStore | None, fold: int) -> Reading:
    """Reads one fold.

    Raises:
        DataError: a file is missing or malformed, a label unknown, ids disagree, a clip missing or twice.
    """
    space = LabelSpace.load("mafw")
    folder = next((name for name in _CLIP_FOLDERS if _videos(lock, name)), None)
    if folder is None:
        raise DataError(
            f"mafw: no clip below {' or '.join(_CLIP_FOLDERS)} in {lock.uri}; unpack the clips there"
        )
    entries = []
    for split in ("train", "test"):
        path = first_existing(
            lock, [f"{_SPLITS}/no_caption/set_{fold}/{split}.txt"], f"{split} split of fold {fold}"
        )
        captions = _captions(lock, store, fold, split)
        for clip, label in _lines(lock.read(store, path), path, space):
            clip_id = clip.removesuffix(".mp4")
            entries.append(Entry(clip_id, split, label, label, f"{folder}/{clip}", captions.get(clip)))
    reading = checked(lock, entries, _videos(lock, folder))
    _compare_with_sheet(lock, store, reading, space)
    return reading


def _videos(lock: Lock, folder: str) -> list[str]:
    return [
        file.path for file in lock.files if file.path.startswith(f"{folder}/") and file.path.endswith(".mp4")
    ]


def _lines(content: bytes, path: str, space: LabelSpace) -> list[tuple[str, str]]:
    """Clip and label of each line of a split without captions."""
    try:
        text = content.decode("ascii")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not ASCII; this is not a no_caption split") from error
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        clip, _, label = line.strip().partition(" ")
        if not clip.endswith(".mp4") or label not in space.ids:
            raise DataError(
                f"{path}, line {number}: {line.strip()!r} is not `NNNNN.mp4 label` with a label of"
                f" {', '.join(space.names)}"
            )
        rows.append((clip, label))
    return rows


def _captions(lock: Lock, store: ObjectStore | None, fold: int, split: str) -> dict[str, str]:
    """English captions by clip; empty where the source has no captioned split (neutral never has any)."""
    path = f"{_SPLITS}/with_caption/set_{fold}/{split}.txt"
    if path not in lock:
        return {}
    try:
        text = lock.read(store, path).decode("gb18030")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: byte {error.start} is not GB18030, the encoding of the official file"
        ) from error
    captions = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        columns = line.split("\t")
        if len(columns) != 4:
            raise DataError(
                f"{path}, line {number}: {len(columns)} columns, expected clip, label, Chinese, English"
            )
        captions[columns[0].strip()] = columns[3].strip()
    return captions


def _compare_with_sheet(lock: Lock, store: ObjectStore | None, reading: Reading, space: LabelSpace) -> None:
    """Compares label ids with `single-set.xlsx`, which would reveal a re-numbered or shifted file."""
    path = next((name for name in _SHEETS if name in lock), None)
    if path is None:
        return
    from openpyxl import load_workbook

    sheet = load_workbook(io.BytesIO(lock.read(store, path)), read_only=True).worksheets[0]
    rows = sheet.iter_rows(values_only=True)
    header = [str(name).strip() for name in next(rows)]
    if "single_label" not in header:
        raise DataError(f"{path}: no column 'single_label' in its first row; found {', '.join(header)}")
    column = header.index("single_label")
    ids = {str(row[0]).strip(): row[column] for row in rows if row[0]}
    wrong = []
    for entry in reading.entries:
        found = ids.get(f"{entry.clip_id}.mp4")
        if found is not None and space.name_of(int(str(found))) != entry.label:
            wrong.append(f"{entry.clip_id} ({entry.label} in the split, id {found} in the sheet)")
    if wrong:
        raise DataError(f"{path}: label ids do not agree with the split files: {some(wrong)}")
