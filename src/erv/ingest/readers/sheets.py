"""Reads official `.xlsx` sheets as a whole; a damaged one is refused in one sentence."""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from erv.errors import DataError
from erv.ingest.readers.reading import Check, first_clips, some
from erv.ingest.readers.tree import Tree
from erv.sources.archives import check_zip_bytes

Row = tuple[Any, ...]
_MOST_ROWS = 100_000
_MOST_COLUMNS = 100


def sheet_in(tree: Tree, folder: str, name: str) -> str | None:
    """The path of a sheet, its name written with hyphens or underscores; None if there is none."""
    wanted = re.sub("[-_ ]", "", name)
    for match in tree.matching(rf"{re.escape(folder)}/([^/]+)\.xlsx"):
        if re.sub("[-_ ]", "", match[1]) == wanted:
            return match[0]
    return None


def read_rows(tree: Tree, path: str) -> list[Row]:
    """All rows of the first worksheet as values; a formula gives its last computed value, or None.

    Raises:
        DataError: the file is not a readable workbook, or has no rows.
    """
    from openpyxl import load_workbook

    content, full = tree.read(path), tree.full(path)
    check_zip_bytes(content, full)
    try:
        book = load_workbook(io.BytesIO(content), read_only=True, data_only=True)
        try:
            sheet = book.worksheets[0]
            sheet.reset_dimensions()  # some writers declare one cell, and the rest would be left out
            # A row of a few bytes may claim to be the billionth, and openpyxl makes those before it.
            limits = {"max_row": _MOST_ROWS + 1, "max_col": _MOST_COLUMNS}
            rows = [tuple(row) for row in sheet.iter_rows(values_only=True, **limits)]
        finally:
            book.close()
    # A damaged workbook can raise nearly anything: from zipfile, zlib, the XML parser, or a lookup.
    except Exception as error:
        raise DataError(
            f"{full}: not a readable .xlsx workbook ({type(error).__name__}: {error}); its download is"
            " incomplete or it has another format, fetch it again and pin the source with `erv data pin`"
        ) from error
    if len(rows) > _MOST_ROWS:
        raise DataError(
            f"{full}: claims more than {_MOST_ROWS} rows, the official sheets have 10045 at most; fetch the"
            " official file again and pin the source with `erv data pin`"
        )
    if not any(any(cell is not None for cell in row) for row in rows):
        raise DataError(f"{full}: its first worksheet is empty; fetch the official file again")
    return rows


def column(rows: Sequence[Row], name: str, path: str) -> int:
    """Index of a column by its name in the first row.

    Raises:
        DataError: there is no such column, as in a sheet without a header.
    """
    header = [str(cell).strip() for cell in rows[0] if cell is not None]
    for index, cell in enumerate(rows[0]):
        if str(cell).strip().lower() == name:
            return index
    raise DataError(f"{path}: no column {name!r} in its first row; found {', '.join(header)}")


def cell(row: Row, index: int) -> Any:
    """A cell, or None if the row is shorter; text is stripped, and empty text is None."""
    value = row[index] if index < len(row) else None
    if isinstance(value, str):
        return value.strip() or None
    return value


def number(value: Any) -> int | None:
    """A whole number as sheets hold it (2, 2.0, "2"), or None."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        return int(value) if float(value).is_integer() else None
    text = str(value).strip()
    return int(text) if re.fullmatch(r"\d{1,9}", text) else None


def agreement(
    path: str, labels: Mapping[str, str], said: Mapping[str, str], needed: Collection[str] | None = None
) -> list[Check]:
    """Checks that a sheet gives listed clips the same labels as the lists, and that it knows them all.

    Args:
        path: of the sheet, for messages.
        labels: of the lists, by clip.
        said: of the sheet, by clip.
        needed: the clips that the sheet should know; None for all of them.
    """
    other = [clip for clip, label in labels.items() if clip in said and said[clip] != label]
    compared = labels.keys() & said.keys()
    needed = labels.keys() if needed is None else needed
    without = [clip for clip in needed if clip not in said]
    shown = some(f"{clip} ({labels[clip]} in the lists, {said[clip]} in the sheet)" for clip in other)
    return [
        Check(
            "sheet_labels",
            not other,
            "error",
            "each listed clip with the same label in both",
            f"{path}: label ids do not agree with the split files: {len(other)} clips, {shown}"
            if other
            else f"{path}: {len(compared)} listed clips agree",
            first_clips(other),
            "the sheet or the lists were numbered otherwise or shifted by a row; use the official files"
            if other
            else "",
        ),
        Check(
            "sheet_clips",
            not without,
            "warning",
            "a label for each listed clip",
            f"{path}: no label for {len(without)} of {len(needed)} listed clips"
            + (f": {some(without)}" if without else ""),
            first_clips(without),
            "their labels could not be compared" if without else "",
        ),
    ]
