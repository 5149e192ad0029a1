"""The cues that clips truly have: `data/cues/NAME.parquet`, from ingestion to whatever checks claims.

Only a source that records cues has any: the sample corpus, or a tree of your own with a `cues.parquet`. For
any other data set the table has no row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from erv.errors import DataError
from erv.files import read_parquet
from erv.manifest import write_table

CHANNELS = ("face", "voice")
SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        *(pa.field(f"{channel}_cues", pa.list_(pa.string()), nullable=False) for channel in CHANNELS),
    ]
)


@dataclass(frozen=True)
class ClipCues:
    """What a clip truly shows.

    Attributes:
        clip_id: as in the manifest.
        channels: cues by channel, `face` and `voice`: keys of `erv.claims.CUE_WORDINGS`.
    """

    clip_id: str
    channels: Mapping[str, frozenset[str]]

    @property
    def all(self) -> frozenset[str]:
        """The cues of all channels."""
        return frozenset().union(*self.channels.values())


def write_cues(rows: Iterable[ClipCues], path: Path) -> None:
    """Writes rows sorted by clip id; none is a table too."""
    ordered = sorted(rows, key=lambda row: row.clip_id)
    table = [
        {"clip_id": row.clip_id} | {f"{name}_cues": sorted(cues) for name, cues in row.channels.items()}
        for row in ordered
    ]
    write_table(pa.Table.from_pylist(table, schema=SCHEMA), path)


def read_cues(folder: Path, names: Sequence[str]) -> dict[str, dict[str, ClipCues]]:
    """The cues of these data sets, by data set and clip id.

    Args:
        folder: with `NAME.parquet` for each.
        names: names of data sets.

    Raises:
        DataError: a table is missing or damaged.
    """
    found = {}
    for name in names:
        rows = read_parquet(folder / f"{name}.parquet", f"ingest@{name}", SCHEMA.names).to_pylist()
        found[name] = {
            row["clip_id"]: ClipCues(
                row["clip_id"], {channel: frozenset(row[f"{channel}_cues"]) for channel in CHANNELS}
            )
            for row in rows
        }
    return found


def require_cues(
    known: Mapping[str, Mapping[str, ClipCues]], clips: Mapping[str, Collection[str]], what: str
) -> None:
    """Refuses clips whose cues nobody has recorded.

    Args:
        known: from `read_cues`.
        clips: ids of the clips that need cues, by data set.
        what: what needs them, for the message.

    Raises:
        DataError: a clip has no cues; names the first data set with one.
    """
    for name, wanted in clips.items():
        lacking = sorted(set(wanted) - set(known.get(name, {})))
        if lacking:
            raise DataError(
                f"{what} has to know which cues the clips of {name} show, but {len(lacking)} of them have"
                f" none on record, such as {lacking[0]!r}; leave it out, or use sources with a cues.parquet"
            )
