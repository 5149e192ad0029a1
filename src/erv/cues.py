"""The cues that clips truly have: `data/cues/NAME.parquet`, from ingestion to whatever checks claims.

Only a source that records cues has any: the sample corpus, or a tree of your own with a `cues.parquet`. For
any other data set the table has no row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from erv.claims import CHANNELS
from erv.errors import DataError
from erv.files import read_parquet
from erv.manifest import write_table

COLUMNS = {channel: f"{channel.removesuffix('s')}_cues" for channel in CHANNELS}
SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        *(pa.field(column, pa.list_(pa.string()), nullable=False) for column in COLUMNS.values()),
        pa.field("shows_in", pa.string()),
        pa.field("contradicts", pa.bool_()),
    ]
)


@dataclass(frozen=True)
class ClipCues:
    """What a clip truly shows.

    Attributes:
        clip_id: as in the manifest.
        channels: cues by channel, of `erv.claims.CHANNELS`; keys of `erv.claims.CUE_WORDINGS`.
        shows_in: where the emotion shows: `face`, `voice` or `both`; None if that is not recorded.
        contradicts: whether its explanation in the source contradicts its label by design; None if that is
            not recorded.
    """

    clip_id: str
    channels: Mapping[str, frozenset[str]]
    shows_in: str | None = None
    contradicts: bool | None = None

    @property
    def all(self) -> frozenset[str]:
        """The cues of all channels."""
        return frozenset().union(*self.channels.values())

    @property
    def by_channel(self) -> dict[str, str]:
        """Each cue with its channel: channel by channel, the cues of one sorted."""
        return {cue: name for name in CHANNELS for cue in sorted(self.channels.get(name, ()))}


KnownCues = Mapping[str, Mapping[str, ClipCues]]
"""The cues of clips, by data set and clip id."""


def write_cues(rows: Iterable[ClipCues], path: Path) -> None:
    """Writes rows sorted by clip id; none is a table too."""
    ordered = sorted(rows, key=lambda row: row.clip_id)
    table = [
        {
            "clip_id": row.clip_id,
            **{column: sorted(row.channels.get(name, ())) for name, column in COLUMNS.items()},
            "shows_in": row.shows_in,
            "contradicts": row.contradicts,
        }
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
                row["clip_id"],
                {channel: frozenset(row[column]) for channel, column in COLUMNS.items()},
                row["shows_in"],
                row["contradicts"],
            )
            for row in rows
        }
    return found


def planted_share(known: KnownCues) -> float | None:
    """The share of explanations in the sources that contradict their label by design; None if none says."""
    said = [row.contradicts for rows in known.values() for row in rows.values()]
    told = [value for value in said if value is not None]
    return sum(told) / len(told) if told else None


def require_cues(known: KnownCues, clips: Mapping[str, Collection[str]], what: str) -> None:
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
