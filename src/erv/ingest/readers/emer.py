"""EMER: v1 `names,emotions,subtitles,reasons`; v2 `name,chinese,english`, with labels in `labels.csv`."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePosixPath

from erv.errors import DataError
from erv.ingest.readers.explanations import Explained, stem
from erv.ingest.readers.reading import Check, some
from erv.ingest.readers.tabular import csv_rows
from erv.ingest.readers.tree import Tree

_NAMES = ["names", "name"]
_LABELS = "labels.csv"


def fits_v1(header: object) -> bool:
    """Whether a header is that of EMER v1."""
    return isinstance(header, list) and _any(header, _NAMES) and {"emotions", "reasons"} <= set(header)


def fits_v2(header: object) -> bool:
    """Whether a header is that of EMER v2."""
    return isinstance(header, list) and _any(header, _NAMES) and "english" in header


def rows_v1(tree: Tree, path: str, header: object) -> tuple[list[Explained], list[Check]]:
    """The explanations of EMER v1.

    Raises:
        DataError: the file is malformed.
    """
    full = tree.full(path)
    content = tree.read(path)
    records = csv_rows(content, full, [_NAMES, ["emotions"], ["reasons"]])
    said = [""] * len(records)
    if isinstance(header, list) and "subtitles" in header:
        said = [text.strip() for _, (text,) in csv_rows(content, full, [["subtitles"]])]
    return [
        Explained(name, raw, text, f"{full}:{line}", subtitle=subtitle or None)
        for (line, (name, raw, text)), subtitle in zip(records, said, strict=True)
    ], []


def rows_v2(tree: Tree, path: str, header: object) -> tuple[list[Explained], list[Check]]:
    """The explanations of EMER v2; a clip that `labels.csv` does not name has no label.

    Raises:
        DataError: the file is malformed, has no `labels.csv` beside it, or names a clip twice.
    """
    full = tree.full(path)
    beside = str(PurePosixPath(path).with_name(_LABELS))
    if beside not in tree:
        raise DataError(
            f"{full}: EMER v2 has no label column; put {_LABELS} beside it (header `name,label`, one line"
            " per clip) and pin the source again with `erv data pin`"
        )
    records = csv_rows(tree.read(beside), tree.full(beside), [_NAMES, ["label", "labels", "emotion"]])
    twice = [name for name, count in Counter(stem(name) for _, (name, _) in records).items() if count > 1]
    if twice:
        raise DataError(f"{tree.full(beside)}: names appear twice: {some(twice)}; keep one line of each")
    labels = {stem(name): (raw, line) for line, (name, raw) in records}
    found = []
    for line, (name, text) in csv_rows(tree.read(path), full, [_NAMES, ["english"]]):
        raw, label_line = labels.get(stem(name), ("", 0))
        label_from = f"{tree.full(beside)}:{label_line}" if label_line else None
        found.append(Explained(name, raw, text, f"{full}:{line}", label_from))
    return found, []


def _any(header: list[str], names: list[str]) -> bool:
    return any(name in header for name in names)
