"""DFEW's `annotation.xlsx`: votes per emotion, the clip's number and its label (0: not one emotion alone)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from erv.errors import DataError
from erv.ingest.readers.numbering import fits_both
from erv.ingest.readers.reading import Check, Listing
from erv.ingest.readers.sheets import Said, Worksheet, agreement, cell, column, number, sheets_with
from erv.ingest.readers.tree import Tree
from erv.labels import LabelSpace

_PATHS = ("annotation/annotation.xlsx", "annotation.xlsx", "label/annotation.xlsx")


MIXED = "not single-labelled"


@dataclass(frozen=True)
class Annotation:
    """A sheet: how messages name it, the labels by clip, and whether its header states its numbering."""

    where: str
    said: Mapping[str, Said]
    stated: bool

    def certain(self, space: LabelSpace) -> dict[str, int]:
        """Ids of its clips, if the sheet itself leaves no doubt about its numbering; else nothing."""
        ids = {clip: space.ids[item.label] for clip, item in self.said.items() if item.label != MIXED}
        return {} if not self.stated and fits_both(set(ids.values()), space) else ids


def compare(annotations: Sequence[Annotation], listing: Listing) -> list[Check]:
    """Compares the lists of all folds with each sheet."""
    listed = {item.clip_id: Said(item.label, item.where) for items in listing.values() for item in items}
    checks: list[Check] = []
    for sheet in annotations:
        checks += agreement(sheet.where, listed, sheet.said)
    return checks


def read(tree: Tree, space: LabelSpace) -> list[Annotation]:
    """The sheets that the tree has, usually one or none.

    Raises:
        DataError: a sheet is damaged, lacks a column, numbers its vote columns differently, gives a clip two
            labels, or holds something else than numbers.
    """
    paths = [path for path in tree.paths if path.lower() in _PATHS]
    return [_read(sheet, space) for path in paths for sheet in sheets_with(tree, path, "order")]


def _read(sheet: Worksheet, space: LabelSpace) -> Annotation:
    rows, full = sheet.rows, sheet.where
    stated = _check_votes([str(name).strip() for name in rows[0] if name is not None], full, space)
    order, label = column(rows, "order", full), column(rows, "label", full)
    said: dict[str, Said] = {}
    for line, row in enumerate(rows[1:], start=2):
        written = cell(row, order), cell(row, label)
        clip, value = map(number, written)
        if written[0] is None and written[1] is None:
            continue
        if clip is None or (value is None and written[1] is not None):
            raise DataError(
                f"{full}, row {line}: order {written[0]!r} and label {written[1]!r} are not a clip number and"
                " a label id; use the official file"
            )
        if value is None:
            continue
        try:
            name = space.name_of(value) if value else MIXED
        except DataError as error:
            raise DataError(f"{full}, row {line}: {error}") from error
        first = said.setdefault(str(clip), Said(name, f"{full}#row{line}"))
        if first.label != name:
            raise DataError(
                f"{full}, row {line}: clip {clip} is {name} here and {first.label} in {first.where}; use the"
                " official file"
            )
    return Annotation(full, said, stated)


def _check_votes(header: list[str], path: str, space: LabelSpace) -> bool:
    """Whether column names `1happy` .. `7fear` state the numbering of the sheet; another one is refused."""
    stated = False
    for name in header:
        match = re.fullmatch(r"(\d)([a-z]+)", name)
        if match and space.normalize(match[2]) is not None:
            label_id = space.ids[space.normalize(match[2]) or ""]
            if label_id != int(match[1]):
                raise DataError(
                    f"{path}: column {name!r} numbers {match[2]} {match[1]}, expected {label_id}; the sheet"
                    " is numbered differently, use the official one"
                )
            stated = True
    return stated
