"""MERR (Cheng et al., NeurIPS 2024): JSON keyed by video, label `pseu_emotion`.

The explanation is `smp_reason_caption` in the fine-grained file and `caption` in the coarse-grained one. If
there is a `.txt` of the same name (`video frames emotion`), it must agree.
"""

from __future__ import annotations

import re

from erv.errors import DataError
from erv.ingest.readers.explanations import Explained, stem
from erv.ingest.readers.reading import Check, first_clips, some
from erv.ingest.readers.tabular import text_of
from erv.ingest.readers.tree import Tree

_LABEL = "pseu_emotion"
_TEXTS = ("smp_reason_caption", "caption")


def fits(document: object) -> bool:
    """Whether a JSON document is MERR's."""
    if not isinstance(document, dict) or not document:
        return False
    first = next(iter(document.values()))
    return isinstance(first, dict) and _LABEL in first


def rows(tree: Tree, path: str, document: object) -> tuple[list[Explained], list[Check]]:
    """The explanations of the file, and a check that the text file beside it gives the same labels.

    Raises:
        DataError: an item is not an object, or its label or explanation is not text.
    """
    full = tree.full(path)
    found = []
    for name, item in document.items() if isinstance(document, dict) else ():
        where = f"{full}[{name!r}]"
        if not isinstance(item, dict):
            raise DataError(f"{where}: not an object with {_LABEL}")
        raw = item.get(_LABEL) or ""
        text = next((item[key] for key in _TEXTS if item.get(key)), "")
        if not isinstance(raw, str) or not isinstance(text, str):
            raise DataError(f"{where}: {_LABEL} and {' or '.join(_TEXTS)} must be text")
        found.append(Explained(name, raw.strip(), text, where))
    return found, _text_beside(tree, path, found)


def _text_beside(tree: Tree, path: str, found: list[Explained]) -> list[Check]:
    beside = re.sub(r"(?i)\.json$", ".txt", path)
    if beside not in tree:
        return []
    full = tree.full(beside)
    text = text_of(tree.read(beside), full).split("\n")
    lines = [(number, line.split()) for number, line in enumerate(text, start=1) if line.strip()]
    if any(len(line) != 3 for _, line in lines):
        return [
            Check(
                "merr_text",
                False,
                "warning",
                "`video frames emotion` in each line",
                f"{full} has another shape and was not compared",
                hint=f"the labels are those of {tree.full(path)}",
            )
        ]
    said = {stem(name): (label, number) for number, (name, _, label) in lines}
    other = {
        row.name: f"{row.name} ({row.raw} in {row.where}, {said[row.name][0]} in {full}:{said[row.name][1]})"
        for row in found
        if row.name in said and said[row.name][0] != row.raw
    }
    return [
        Check(
            "merr_text",
            not other,
            "error",
            f"the labels of {tree.full(path)}",
            f"{full} gives {len(other)} clips another label" + (f": {some(other.values())}" if other else ""),
            first_clips(other),
            f"correct one of the two, or remove {full} if it is not the one that belongs to the JSON"
            if other
            else "",
        )
    ]
