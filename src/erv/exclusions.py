"""Clips that training leaves out, because a clip of another split is the same.

The stage `leakage` writes the list; `sft`, `rollouts`, `distill` and `grpo` leave out what is on it. It
has ids alone: why they are left out is in the record `data/leakage.json`, which training doesn't depend on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

from erv.errors import DataError
from erv.files import read_document, write_document
from erv.manifest import ClipRow


@dataclass(frozen=True)
class Excluded:
    """An excluded clip.

    Attributes:
        dataset: its data set.
        clip_id: as in the manifest.
    """

    dataset: str
    clip_id: str


def write_exclusions(excluded: Iterable[Excluded], path: Path) -> None:
    """Writes the list, sorted by data set and clip id."""
    ordered = sorted(excluded, key=astuple)
    write_document({"excluded": [asdict(item) for item in ordered]}, path)


def read_exclusions(path: Path) -> list[Excluded]:
    """The excluded clips, in the order of the file; one of before has more about each, which nobody needs.

    Raises:
        DataError: the file is missing, or not what the stage `leakage` writes.
    """
    document = read_document(path, "leakage")
    try:
        return [Excluded(item["dataset"], item["clip_id"]) for item in document["excluded"]]
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: not what leakage writes; run `dvc repro leakage` again") from error


def without(rows: Iterable[ClipRow], excluded: Iterable[Excluded]) -> list[ClipRow]:
    """The rows that are not excluded, in their order."""
    out = {(item.dataset, item.clip_id) for item in excluded}
    return [row for row in rows if (row.dataset, row.clip_id) not in out]
