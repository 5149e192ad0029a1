"""Uploads the sample corpus to a raw bucket, but never over real data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from erv.errors import DataError
from erv.sample.layouts import MARK

# A file that every tree of the sample has, and no other tree.
_MARKS = {
    "mafw": "cues.parquet",
    "dfew": "cues.parquet",
    "reasoning": "cues.parquet",
    "judge": MARK,
    "base": MARK,
}


class Uploads(Protocol):
    """The part of `erv.storage.store.Store` that is needed here."""

    def list(self, uri: str, /) -> list[Any]:
        """Objects below an `s3://` folder."""

    def mirror_tree(self, folder: Path, uri: str, /) -> dict[str, int]:
        """Makes the objects below `uri` equal to a folder's files; returns counts of what it did."""


def upload_sample(
    folders: Sequence[Path], root: str, store: Uploads, progress: Callable[[str], None] = lambda line: None
) -> None:
    """Makes `root/NAME` hold exactly each folder's files, and removes leftovers of an earlier sample.

    Args:
        folders: trees as `write_sample` returns them.
        root: e.g. `s3://erv-raw`.
        store: the target.
        progress: called with a line per tree.

    Raises:
        DataError: a target holds objects that are not from a sample corpus; nothing is uploaded.
        StorageError: the bucket can't be written.
    """
    before = {folder.name: [item.uri for item in store.list(f"{root}/{folder.name}")] for folder in folders}
    for name, uris in before.items():
        if uris and f"{root}/{name}/{_MARKS[name]}" not in uris:
            raise DataError(
                f"{root}/{name} holds {len(uris)} objects that are not of a sample corpus; the sample is not"
                " uploaded over them, use another raw bucket"
            )
    for folder in folders:
        target = f"{root}/{folder.name}"
        done = store.mirror_tree(folder, target)
        progress(f"{target}: {', '.join(f'{count} {what}' for what, count in done.items())}")
