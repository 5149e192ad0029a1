"""Reads official `.xlsx` sheets as a whole; a damaged one is refused in one sentence."""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from erv.errors import DataError
from erv.ingest.readers.reading import Check, first_clips, some
from erv.ingest.readers.tree import Tree
from erv.sources.archives import check_zip_bytes

Row = tuple[Any, ...]
_MOST_ROWS = 100_000
_MOST_COLUMNS = 100


@dataclass(frozen=True)
class Worksheet:
    """A worksheet: how messages name it, and its rows as values."""

    where: str
    rows: list[Row]


@dataclass(frozen=True, slots=True)
class Said:
    """The label of a clip, and the row or line that gives it."""

    label: str
    where: str


def sheets_in(tree: Tree, folder: str, name: str) -> list[str]:
    """The paths of a sheet, its name written with hyphens or underscores, in any case; usually one."""
    wanted = re.sub("[-_ ]", "", name).lower()
    return [
        match[0]
        for match in tree.matching(rf"{re.escape(folder)}/([^/]+)\.(?i:xlsx)")
        if re.sub("[-_ ]", "", match[1]).lower() == wanted
    ]


def read_rows(tree: Tree, path: str) -> list[Row]:
    """All rows of the first worksheet; raises as `read_sheets`."""
    return read_sheets(tree, path)[0].rows


def read_sheets(tree: Tree, path: str) -> list[Worksheet]:
    """The first worksheet and others that hold anything; a formula gives its last computed value, or None.

    Raises:
        DataError: the file is not a readable workbook, or its first worksheet has no rows.
    """
    from openpyxl import load_workbook

    content, full = tree.read(path), tree.full(path)
    check_zip_bytes(content, full)
    try:
        book = load_workbook(io.BytesIO(content), read_only=True, data_only=True)
        try:
            found: list[Worksheet] = []
            for sheet in book.worksheets:
                sheet.reset_dimensions()  # some writers declare one cell, and the rest would be left out
                # A row of a few bytes may claim to be the billionth, and openpyxl makes those before it.
                limits = {"max_row": _MOST_ROWS + 1, "max_col": _MOST_COLUMNS}
                rows = [tuple(row) for row in sheet.iter_rows(values_only=True, **limits)]
                where = f"{full} (worksheet {sheet.title!r})" if found else full
                if not found or _filled(rows):
                    found.append(Worksheet(where, rows))
        finally:
            book.close()
    # A damaged workbook can raise nearly anything: from zipfile, zlib, the XML parser, or a lookup.
    except Exception as error:
        raise DataError(
            f"{full}: not a readable .xlsx workbook ({type(error).__name__}: {error}); its download is"
            " incomplete or it has another format, fetch it again and pin the source with `erv data pin`"
        ) from error
    large = [sheet.where for sheet in found if len(sheet.rows) > _MOST_ROWS]
    if large:
        raise DataError(
            f"{large[0]}: claims more than {_MOST_ROWS} rows, the official sheets have 10045 at most; fetch"
            " the official file again and pin the source with `erv data pin`"
        )
    if not found or not _filled(found[0].rows):
        raise DataError(f"{full}: its first worksheet is empty; fetch the official file again")
    return found


def sheets_with(tree: Tree, path: str, name: str) -> list[Worksheet]:
    """The worksheets with a column of that name: several may contradict each other.

    Raises:
        DataError: none has it; otherwise as `read_sheets`.
    """
    sheets = read_sheets(tree, path)
    having = [sheet for sheet in sheets if name in _header(sheet.rows)]
    if not having:
        column(sheets[0].rows, name, sheets[0].where)
    return having


def column(rows: Sequence[Row], name: str, path: str) -> int:
    """Index of a column by its name in the first row.

    Raises:
        DataError: there is no such column, as in a sheet without a header, or there are two.
    """
    header = _header(rows)
    if header.count(name) > 1:
        raise DataError(f"{path}: column {name!r} appears twice in its first row; keep the right one")
    if name in header:
        return header.index(name)
    found = ", ".join(str(cell).strip() for cell in rows[0] if cell is not None)
    raise DataError(f"{path}: no column {name!r} in its first row; found {found}")


def _header(rows: Sequence[Row]) -> list[str]:
    return [str(cell).strip().lower() for cell in rows[0]] if rows else []


def _filled(rows: Sequence[Row]) -> bool:
    return any(any(cell is not None for cell in row) for row in rows)


def cell(row: Row, index: int) -> Any:
    """A cell, or None if the row is shorter; text is stripped, and empty text is None."""
    value = row[index] if index < len(row) else None
    if isinstance(value, str):
        return value.strip() or None
    return value


def number(value: Any) -> int | None:
    """A whole number as sheets hold it (2, 2.0, "2", "2.0"), or None."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        return int(value) if float(value).is_integer() else None
    match = re.fullmatch(r"(\d{1,9})(?:\.0+)?", str(value).strip())
    return int(match[1]) if match else None


def agreement(
    path: str, labels: Mapping[str, Said], said: Mapping[str, Said], needed: Collection[str] | None = None
) -> list[Check]:
    """Checks that a sheet gives listed clips the same labels as the lists, and that it knows them all.

    Args:
        path: of the sheet, for messages.
        labels: of the lists, by clip.
        said: of the sheet, by clip.
        needed: the clips that the sheet should know; None for all of them.
    """
    other = [clip for clip, item in labels.items() if clip in said and said[clip].label != item.label]
    compared = labels.keys() & said.keys()
    needed = labels.keys() if needed is None else needed
    without = [clip for clip in needed if clip not in said]
    shown = some(
        f"{clip} ({labels[clip].label} in the lists, {said[clip].label} in the sheet: {labels[clip].where},"
        f" {said[clip].where})"
        for clip in other
    )
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
