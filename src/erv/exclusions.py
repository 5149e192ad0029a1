"""Clips that nothing may be trained or tuned on, because a clip of another split is the same.

The stage `leakage` writes the list; `sft`, `distill` and `grpo` leave out what is on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
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
        split: train or validation.
        because: which clip it equals, and in what.
    """

    dataset: str
    clip_id: str
    split: str
    because: str


def write_exclusions(excluded: Iterable[Excluded], path: Path) -> None:
    """Writes the list, sorted by data set and clip id."""
    ordered = sorted(excluded, key=lambda item: (item.dataset, item.clip_id))
    write_document({"excluded": [asdict(item) for item in ordered]}, path)


def read_exclusions(path: Path) -> list[Excluded]:
    """The excluded clips, in the order of the file.

    Raises:
        DataError: the file is missing, or not what the stage `leakage` writes.
    """
    document = read_document(path, "leakage")
    try:
        return [Excluded(**item) for item in document["excluded"]]
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: not what leakage writes; run `dvc repro leakage` again") from error


def without(rows: Iterable[ClipRow], excluded: Iterable[Excluded]) -> list[ClipRow]:
    """The rows that are not excluded, in their order."""
    out = {(item.dataset, item.clip_id) for item in excluded}
    return [row for row in rows if (row.dataset, row.clip_id) not in out]
