"""The cues that clips really contain, for sources that record them: the sample corpus."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from erv.errors import DataError
from erv.sources import Lock, ObjectStore

CUES_FILE = "cues.parquet"
# Kind of a cue -> the column of `cues.parquet` that lists those of a clip. A source may lack a column.
COLUMNS = {"face": "face_cues", "voice": "voice_cues", "words": "word_cues"}

FindCues = Callable[[str], Sequence[str]]


@dataclass(frozen=True)
class CueRecord:
    """The cues of all sources that record them.

    Attributes:
        cues: (data set, clip id) -> row of `cues.parquet`.
        planted: share of the cold start's explanations that contradict their answer by design, or None.
        find_cues: finds the cues that a text mentions. None if no source records cues, since it only knows
            the wordings of the sample corpus.
        kinds: cue -> `face`, `voice` or `words`, for each cue that `find_cues` can find.
    """

    cues: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    planted: float | None = None
    find_cues: FindCues | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)


def true_cues(row: Mapping[str, Any]) -> dict[str, str]:
    """The cues of a clip with their kinds, from its row of `cues.parquet`, in the order of `COLUMNS`."""
    return {cue: kind for kind, column in COLUMNS.items() for cue in row.get(column) or ()}


def read_cues(locks: Mapping[str, Lock], store: ObjectStore | None) -> CueRecord:
    """Reads the cues of the sources that have them; real data sets have none.

    Args:
        locks: pinned sources by data set, including the cold start's.
        store: the object store, for sources that are in one.
    """
    cues: dict[tuple[str, str], Mapping[str, Any]] = {}
    planted = None
    for name, lock in sorted(locks.items()):
        if CUES_FILE not in lock:
            continue
        try:
            rows = pq.read_table(io.BytesIO(lock.read(store, CUES_FILE))).to_pylist()
        except pa.ArrowException as error:
            raise DataError(
                f"{lock.uri}/{CUES_FILE}: not a readable parquet file ({error}); correct it and pin again"
            ) from None
        cues.update({(name, row["clip_id"]): row for row in rows})
        if rows and "contradicts" in rows[0]:
            planted = sum(bool(row["contradicts"]) for row in rows) / len(rows)
    if not cues:
        return CueRecord()
    from erv.sample.emotions import FACE_CUES, VOICE_CUES
    from erv.sample.wordings import find_cues

    kinds = {**dict.fromkeys(FACE_CUES, "face"), **dict.fromkeys(VOICE_CUES, "voice")}
    return CueRecord(cues, planted, find_cues, kinds)
