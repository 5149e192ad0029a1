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
from erv.ingest.readers.sheets import (
    Said,
    Worksheet,
    agreement,
    cell,
    column,
    number,
    read_rows,
    sheets_in,
    sheets_with,
)
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
    labels = {item.clip_id: Said(item.label, item.where) for items in listing.values() for item in items}
    checks: list[Check] = []
    sizes: dict[str, int] = {}
    # The compound sheet has only the compound clips.
    compound = {clip for clip, item in labels.items() if "_" in item.label}
    single = settings.set == "single"
    name, title = ("single-set", "single_label") if single else ("multi-set", "multi_label")
    # A sheet may be there under two names, or twice in one workbook, and each must agree.
    for path in sheets_in(tree, _FOLDER, name):
        for sheet in sheets_with(tree, path, title):
            said, rows = _ids(sheet, title, space)
            sizes.setdefault(f"rows of {name}.xlsx", rows)
            checks += agreement(sheet.where, labels, said, None if single else compound)
    for path in sheets_in(tree, _FOLDER, "annotation"):
        flagged, rows = _flagged(tree, path)
        sizes.setdefault("rows of annotation.xlsx", rows)
        checks.append(_invalid(tree.full(path), sorted(flagged & set(labels))))
    return Compared(tuple(checks), sizes)


def captions(tree: Tree, clips: Collection[str]) -> tuple[dict[str, tuple[str, str]], list[Check]]:
    """English captions of clips and their origin, from `descriptive_text.xlsx`; its first row is a clip.

    Where the sheet has several captions of a clip the first counts, and a check says so.

    Raises:
        DataError: the sheet is damaged, or has fewer than three columns.
    """
    found: dict[str, tuple[str, str]] = {}
    other: dict[str, str] = {}
    for path in sheets_in(tree, _FOLDER, "descriptive_text"):
        rows = read_rows(tree, path)
        if max(len(row) for row in rows) < 3:
            raise DataError(f"{tree.full(path)}: fewer than three columns, expected clip, Chinese, English")
        for index, row in enumerate(rows, start=1):
            clip, text = _clip_of(cell(row, 0)), cell(row, 2)
            if clip in clips and clip is not None and text is not None:
                where = f"{tree.full(path)}#row{index}"
                first = found.setdefault(clip, (str(text), where))
                if first[0] != str(text):
                    other[clip] = f"{clip} ({first[1]}, {where})"
    check = Check(
        "one_caption",
        not other,
        "warning",
        "one caption of each clip",
        f"{len(other)} clips have several captions: {some(other.values())}"
        if other
        else "one caption of each",
        first_clips(other),
        "the first is used" if other else "",
    )
    return found, [check]


def _ids(sheet: Worksheet, name: str, space: LabelSpace) -> tuple[dict[str, Said], int]:
    """The label of each clip of a sheet, and the number of its rows."""
    rows, full = sheet.rows, sheet.where
    index = column(rows, name, full)
    said: dict[str, Said] = {}
    clips = 0
    for line, row in enumerate(rows[1:], start=2):
        clip, value = _clip_of(cell(row, 0)), cell(row, index)
        clips += clip is not None
        if clip is None and cell(row, 0) is not None and value is not None:
            raise DataError(
                f"{full}, row {line}: {cell(row, 0)!r} is not a clip like `00019.mp4`; use the official file"
            )
        if clip is None or value is None:
            continue
        try:
            label = _label(value, space)
        except DataError as error:
            raise DataError(f"{full}, row {line}: {error}") from error
        first = said.setdefault(clip, Said(label, f"{full}#row{line}"))
        if first.label != label:
            raise DataError(
                f"{full}, row {line}: clip {clip} is {label} here and {first.label} in an earlier row"
                f" ({first.where}); use the official file"
            )
    return said, clips


def _label(value: object, space: LabelSpace) -> str:
    """The name of an id, or of several ids joined, including unlisted combinations."""
    parts = re.split(r"\s*[,，;]\s*", str(value))
    ids = [number(part) for part in parts]
    if None in ids:
        raise DataError(f"{value!r} is not a label id or ids with commas between them")
    names = [space.name_of(label_id) for label_id in sorted(i for i in ids if i is not None)]
    # The ids of compound labels are ours; a spreadsheet makes 12 of "1,2" where the comma groups thousands.
    joined = next((name for name in names if "_" in name), None)
    if joined is not None:
        raise DataError(
            f"{value!r} is not an id of a single emotion; a spreadsheet may have dropped a comma, use the"
            " official file"
        )
    return "_".join(names)


def _flagged(tree: Tree, path: str) -> tuple[set[str], int]:
    """Clips whose `invalid` is not 0 (-1 and 0.93 occur), and the number of rows."""
    rows = read_rows(tree, path)
    index = column(rows, "invalid", tree.full(path))
    flagged, clips = set(), 0
    for row in rows[1:]:
        clip = _clip_of(cell(row, 0))
        clips += clip is not None
        flag = cell(row, index)
        if clip is not None and flag is not None and number(flag) != 0:
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
    match = re.fullmatch(r"(\d{1,5})(?:\.(?i:mp4)|\.0)?", str(value).strip())
    return f"{int(match[1]):05d}" if match else None
