"""The cues that a source records of its clips."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from erv.claims import CUE_WORDINGS
from erv.cues import CHANNELS, ClipCues
from erv.errors import DataError
from erv.sources import Lock, ObjectStore

FILE = "cues.parquet"  # in the source: `clip_id`, `face_cues`, `voice_cues`, and whatever else


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
        rows = table.select(["clip_id", *(f"{channel}_cues" for channel in CHANNELS)]).to_pylist()
    except (pa.ArrowException, KeyError) as error:
        said = " ".join(str(error).split())[:200]
        raise DataError(f"{where}: not a readable table of cues ({said}); correct it and pin again") from None
    return [_row(row, where) for row in rows]


def _row(row: dict[str, Any], where: str) -> ClipCues:
    channels = {channel: frozenset(row[f"{channel}_cues"] or ()) for channel in CHANNELS}
    clip = ClipCues(str(row["clip_id"]), channels)
    unknown = sorted(clip.all - CUE_WORDINGS.keys())
    if unknown:
        raise DataError(
            f"{where}: clip {clip.clip_id!r} has the cue {unknown[0]!r}, which has no wording in"
            " src/erv/claims.py; add one, or leave the cue out"
        )
    return clip
