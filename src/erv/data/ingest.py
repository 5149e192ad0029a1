"""Ingestion: a pinned source becomes a manifest, one row per clip of the chosen fold."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass

from erv.data import dfew, mafw, reasoning
from erv.data.manifest import ClipRow
from erv.data.reading import Entry, Reading
from erv.data.sources import Lock, ObjectStore
from erv.errors import DataError

DATASETS = ("mafw", "dfew", "reasoning")


@dataclass(frozen=True)
class Ingested:
    """The rows of a manifest, and the videos of the source that no split lists."""

    rows: tuple[ClipRow, ...]
    unlisted: tuple[str, ...]

    def counts(self) -> dict[str, float]:
        """Clips per split, and videos that no split lists."""
        splits = Counter(row.split for row in self.rows)
        counts = {f"clips/{split}": float(splits[split]) for split in ("train", "validation", "test")}
        return {"clips": float(len(self.rows)), **counts, "unlisted": float(len(self.unlisted))}


def ingest(
    dataset: str, lock: Lock, store: ObjectStore | None, *, fold: int, validation_share: float, seed: int
) -> Ingested:
    """Reads the official files of a source and cuts a validation split from train.

    Args:
        dataset: mafw, dfew or reasoning.
        lock: the pinned source.
        store: for sources in an object store.
        fold: official fold, 1..5; the reasoning set has none.
        validation_share: of train, cut by a hash of the clip id; never of test.
        seed: of that hash.

    Raises:
        DataError: the source is not what its layout says.
    """
    reading = _read(dataset, lock, store, fold)
    rows = []
    for entry in reading.entries:
        file = lock.find(entry.path)
        rows.append(
            ClipRow(
                clip_id=entry.clip_id,
                dataset=dataset,
                fold=0 if dataset == "reasoning" else fold,
                split=_split(entry, dataset, validation_share, seed),
                label=entry.label,
                raw_label=entry.raw_label,
                caption=entry.caption,
                completion=entry.completion,
                uri=lock.uri_of(entry.path),
                bytes=file.bytes,
                sha256=file.sha256,
            )
        )
    return Ingested(tuple(sorted(rows, key=lambda row: row.clip_id)), reading.unlisted)


def _read(dataset: str, lock: Lock, store: ObjectStore | None, fold: int) -> Reading:
    if dataset == "mafw":
        return mafw.read(lock, store, fold)
    if dataset == "dfew":
        return dfew.read(lock, store, fold)
    if dataset == "reasoning":
        return reasoning.read(lock, store)
    raise DataError(f"data set {dataset!r} is not known; expected one of {', '.join(DATASETS)}")


def _split(entry: Entry, dataset: str, validation_share: float, seed: int) -> str:
    if entry.split != "train":
        return entry.split
    digest = hashlib.sha256(f"{seed}:{dataset}:{entry.clip_id}".encode()).digest()
    return "validation" if int.from_bytes(digest[:8], "big") < validation_share * 2**64 else "train"
