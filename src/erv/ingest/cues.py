"""The cues that a source records of its clips."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from erv.claims import CUE_WORDINGS
from erv.cues import COLUMNS, ClipCues
from erv.errors import DataError
from erv.sources import Lock, ObjectStore

# In the source: `clip_id` and the cues of face and voice; where it has them, the cues of words, `channel`
# (where the emotion shows) and `contradicts`; and whatever else.
FILE = "cues.parquet"
_NEEDED = ("clip_id", COLUMNS["face"], COLUMNS["voice"])
_OPTIONAL = (COLUMNS["words"], "channel", "contradicts")


def source_cues(lock: Lock, store: ObjectStore | None) -> list[ClipCues]:
    """The cues of all clips that the source records some of; none if it has no such file.

    Raises:
        DataError: the file can't be read, lacks a column, or names a cue that has no wording.
    """
    if FILE not in lock:
        return []
    where = f"{lock.uri}/{FILE}"
    try:
        table = pq.read_table(io.BytesIO(lock.read(store, FILE)))
        columns = [*_NEEDED, *(name for name in _OPTIONAL if name in table.column_names)]
        rows = table.select(columns).to_pylist()
    except (pa.ArrowException, KeyError) as error:
        said = " ".join(str(error).split())[:200]
        raise DataError(f"{where}: not a readable table of cues ({said}); correct it and pin again") from None
    return [_row(row, where) for row in rows]


def _row(row: dict[str, Any], where: str) -> ClipCues:
    channels = {channel: frozenset(row.get(column) or ()) for channel, column in COLUMNS.items()}
    clip = ClipCues(str(row["clip_id"]), channels, row.get("channel"), row.get("contradicts"))
    unknown = sorted(clip.all - CUE_WORDINGS.keys())
    if unknown:
        raise DataError(
            f"{where}: clip {clip.clip_id!r} has the cue {unknown[0]!r}, which has no wording in"
            " src/erv/claims.py; add one, or leave the cue out"
        )
    return clip
