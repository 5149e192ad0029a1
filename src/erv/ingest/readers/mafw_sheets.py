"""MAFW's sheets in `Labels`: they must agree with the lists on every clip.

`single-set.xlsx` (last column `single_label`, an id), `multi-set.xlsx` (`multi_label`, ids as "1,2"),
`annotation.xlsx` (an `invalid` flag) and `descriptive_text.xlsx`, which has no header.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from erv.errors import DataError
from erv.ingest.readers.reading import Check, Listing, first_clips, some
from erv.ingest.readers.sheets import agreement, cell, column, number, read_rows, sheet_in
from erv.ingest.readers.tree import Tree
from erv.labels import LabelSpace
from erv.settings.ingest import MafwReader

_FOLDER = "Labels"


@dataclass(frozen=True)
class Compared:
    """The checks of the lists against the sheets, and the number of rows of each sheet."""

    checks: tuple[Check, ...]
    sizes: Mapping[str, int]


def compare(tree: Tree, settings: MafwReader, listing: Listing, space: LabelSpace) -> Compared:
    """Compares the lists of all folds with the sheets that the tree has.

    Raises:
        DataError: a sheet is damaged or lacks a column, or an id is outside the label space.
    """
    labels = {item.clip_id: item.label for items in listing.values() for item in items}
    checks: list[Check] = []
    sizes: dict[str, int] = {}
    if settings.set == "single":
        path = sheet_in(tree, _FOLDER, "single-set")
        if path is not None:
            said, rows = _ids(tree, path, "single_label", space)
            sizes["rows of single-set.xlsx"] = rows
            checks += agreement(tree.full(path), labels, said)
    else:
        path = sheet_in(tree, _FOLDER, "multi-set")
        if path is not None:
            said, rows = _ids(tree, path, "multi_label", space)
            sizes["rows of multi-set.xlsx"] = rows
            # It has only the compound clips.
            compound = {clip for clip, label in labels.items() if "_" in label}
            checks += agreement(tree.full(path), labels, said, compound)
    path = sheet_in(tree, _FOLDER, "annotation")
    if path is not None:
        flagged, sizes["rows of annotation.xlsx"] = _flagged(tree, path)
        checks.append(_invalid(tree.full(path), sorted(flagged & set(labels))))
    return Compared(tuple(checks), sizes)


def captions(tree: Tree, clips: Collection[str]) -> dict[str, tuple[str, str]]:
    """English captions of clips and their origin, from `descriptive_text.xlsx`; its first row is a clip.

    Raises:
        DataError: the sheet is damaged, or has fewer than three columns.
    """
    path = sheet_in(tree, _FOLDER, "descriptive_text")
    if path is None:
        return {}
    rows = read_rows(tree, path)
    if max(len(row) for row in rows) < 3:
        raise DataError(f"{tree.full(path)}: fewer than three columns, expected clip, Chinese, English")
    found = {}
    for index, row in enumerate(rows, start=1):
        clip, text = _clip_of(cell(row, 0)), cell(row, 2)
        if clip in clips and clip is not None and text is not None:
            found[clip] = (str(text), f"{tree.full(path)}#row{index}")
    return found


def _ids(tree: Tree, path: str, name: str, space: LabelSpace) -> tuple[dict[str, str], int]:
    """The label of each clip of a sheet, and the number of its rows."""
    rows, full = read_rows(tree, path), tree.full(path)
    index = column(rows, name, full)
    said: dict[str, str] = {}
    clips = 0
    for line, row in enumerate(rows[1:], start=2):
        clip, value = _clip_of(cell(row, 0)), cell(row, index)
        clips += clip is not None
        if clip is None or value is None:
            continue
        try:
            label = _label(value, space)
        except DataError as error:
            raise DataError(f"{full}, row {line}: {error}") from error
        if said.setdefault(clip, label) != label:
            raise DataError(
                f"{full}, row {line}: clip {clip} is {label} here and {said[clip]} in an earlier row; use the"
                " official file"
            )
    return said, clips


def _label(value: object, space: LabelSpace) -> str:
    """The name of an id, or of several ids joined, including unlisted combinations."""
    single = number(value)
    if single is not None:
        return space.name_of(single)
    parts = re.split(r"\s*[,，;]\s*", str(value))
    ids = [number(part) for part in parts]
    if None in ids:
        raise DataError(f"{value!r} is not a label id or ids with commas between them")
    return "_".join(space.name_of(label_id) for label_id in sorted(i for i in ids if i is not None))


def _flagged(tree: Tree, path: str) -> tuple[set[str], int]:
    """Clips whose `invalid` is not 0 (-1 and 0.93 occur), and the number of rows."""
    rows = read_rows(tree, path)
    index = column(rows, "invalid", tree.full(path))
    flagged, clips = set(), 0
    for row in rows[1:]:
        clip = _clip_of(cell(row, 0))
        clips += clip is not None
        if clip is not None and cell(row, index) not in (None, 0, "0"):
            flagged.add(clip)
    return flagged, clips


def _invalid(path: str, clips: list[str]) -> Check:
    return Check(
        "flagged_invalid",
        not clips,
        "warning",
        "no listed clip that its annotators flagged as invalid",
        f"{path}: {len(clips)} listed clips are flagged" + (f": {some(clips)}" if clips else ""),
        first_clips(clips),
        "they stay in the manifest, as in the official lists" if clips else "",
    )


def _clip_of(value: object) -> str | None:
    """The clip id in a cell (`00019.mp4`, 19), or None."""
    match = re.fullmatch(r"(\d{1,5})(?:\.mp4|\.0)?", str(value).strip())
    return f"{int(match[1]):05d}" if match else None
