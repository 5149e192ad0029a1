"""DFEW's `annotation.xlsx`: votes per emotion, the clip's number and its label (0: not one emotion alone)."""

from __future__ import annotations

import re

from erv.errors import DataError
from erv.ingest.readers.reading import Check, Listing
from erv.ingest.readers.sheets import agreement, cell, column, number, read_rows
from erv.ingest.readers.tree import Tree
from erv.labels import LabelSpace

_PATHS = ("Annotation/annotation.xlsx", "annotation.xlsx", "label/annotation.xlsx")


def compare(tree: Tree, listing: Listing, space: LabelSpace) -> list[Check]:
    """Compares the lists of all folds with the sheet, if the tree has one.

    Raises:
        DataError: the sheet is damaged, lacks a column, or numbers its vote columns differently.
    """
    path = next((path for path in _PATHS if path in tree), None)
    if path is None:
        return []
    rows, full = read_rows(tree, path), tree.full(path)
    _check_votes([str(name).strip() for name in rows[0] if name is not None], full, space)
    order, label = column(rows, "order", full), column(rows, "label", full)
    said: dict[str, str] = {}
    for line, row in enumerate(rows[1:], start=2):
        clip, value = number(cell(row, order)), number(cell(row, label))
        if clip is None or value is None:
            continue
        try:
            said[str(clip)] = space.name_of(value) if value else "not single-labelled"
        except DataError as error:
            raise DataError(f"{full}, row {line}: {error}") from error
    listed = {item.clip_id: item.label for items in listing.values() for item in items}
    return agreement(full, listed, said)


def _check_votes(header: list[str], path: str, space: LabelSpace) -> None:
    """The column names `1happy` .. `7fear` state how the sheet is numbered."""
    for name in header:
        match = re.fullmatch(r"(\d)([a-z]+)", name)
        if match and space.normalize(match[2]) is not None:
            label_id = space.ids[space.normalize(match[2]) or ""]
            if label_id != int(match[1]):
                raise DataError(
                    f"{path}: column {name!r} numbers {match[2]} {match[1]}, expected {label_id}; the sheet"
                    " is numbered differently, use the official one"
                )
