"""The readers of data sets, by their name in `ingest.readers`."""

from __future__ import annotations

from erv.ingest.readers import dfew, mafw, ravdess, reasoning, table
from erv.ingest.readers.reading import Reading
from erv.settings.ingest import (
    DfewReader,
    MafwReader,
    RavdessReader,
    ReaderSettings,
    ReasoningReader,
)
from erv.sources import Lock, ObjectStore
from erv.sources.selection import Selection


def read(dataset: str, lock: Lock, store: ObjectStore | None, settings: ReaderSettings, fold: int) -> Reading:
    """Reads the official files of a source.

    Args:
        dataset: its name, and that of its label space.
        lock: the pinned source.
        store: for sources in an object store.
        settings: which reader, and how it reads.
        fold: official fold, 1..5; ignored by sets that have none.

    Raises:
        DataError: the source does not match the reader's layout.
        StorageError: an object can't be read.
    """
    if isinstance(settings, MafwReader):
        return mafw.read(dataset, lock, store, settings, fold)
    if isinstance(settings, DfewReader):
        return dfew.read(dataset, lock, store, settings, fold)
    if isinstance(settings, RavdessReader):
        return ravdess.read(dataset, lock, store, settings)
    if isinstance(settings, ReasoningReader):
        return reasoning.read(dataset, lock, store)
    return table.read(dataset, lock, store, settings, fold)


def selection_of(settings: ReaderSettings) -> Selection:
    """Which files of a source its reader needs."""
    if isinstance(settings, MafwReader):
        return mafw.selection(settings)
    if isinstance(settings, DfewReader):
        return dfew.selection(settings)
    if isinstance(settings, RavdessReader):
        return ravdess.selection(settings)
    if isinstance(settings, ReasoningReader):
        return reasoning.selection(settings)
    return table.selection(settings)
