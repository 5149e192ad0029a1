"""Extraction: clips of a manifest become shards; what can't be decoded is quarantined with a reason.

Every clip of the manifest is in a shard or in quarantine, and what ingest excluded is listed there too. The
shards depend on the clips and the settings, not on the number of workers, nor on whether they run here or on
a Dask cluster. An interrupted run leaves its finished shards for the next one.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from erv.errors import DataError
from erv.extract.chunks import extraction_key, plan, write_chunks
from erv.extract.kept_shards import ROOT, ExtractState, one_at_a_time
from erv.files import read_parquet
from erv.manifest import ClipRow, write_table
from erv.progress import meter, ticker
from erv.settings import ExtractSettings
from erv.shards import QUARANTINE_SCHEMA
from erv.sources import Lock, ObjectStore

logger = logging.getLogger(__name__)

_SHOWN = 5


@dataclass(frozen=True)
class Extracted:
    """Counts of an extraction.

    Attributes:
        clips: clips in the manifest.
        extracted: clips in the shards.
        reasons: quarantined clips of the manifest by reason.
        excluded: clips that ingest excluded; they are not in the manifest, only in the quarantine file.
    """

    clips: int
    extracted: int
    reasons: dict[str, int]
    excluded: int = 0

    @property
    def quarantined(self) -> int:
        """Clips of the manifest in quarantine."""
        return sum(self.reasons.values())


def extract(
    rows: Sequence[ClipRow],
    lock: Lock,
    store: ObjectStore | None,
    settings: ExtractSettings,
    shards: Path,
    quarantine: Path,
    *,
    workers: int,
    dask: str | None = None,
    excluded: Sequence[Mapping[str, str]] = (),
    state_root: Path = ROOT,
) -> Extracted:
    """Decodes clips in worker processes and writes shards in the order of clip ids.

    The memory of this process does not grow with the number of clips: it holds a few decoded clips and one
    row group.

    Args:
        rows: rows of one data set, sorted by clip id.
        lock: lock of its source.
        store: the object store that holds the clips, if they are in one.
        settings: the `extract` section.
        shards: folder to write; it appears when complete.
        quarantine: parquet file of the clips left out, with reasons.
        workers: decoding processes, of this machine or of each task of the cluster.
        dask: address of a Dask scheduler, to decode on its workers; None for this machine.
        excluded: the clips that ingest excluded, with `clip_id` and `reason`.
        state_root: parent of the folders of unfinished extractions.

    Raises:
        DataError: more clips than allowed went into quarantine, a clip has no sound under `missing_audio:
            fail`, rows and lock do not belong together, the Dask cluster fails, another extraction of the
            data set is running here, or clips were lost.
        StorageError: a clip can't be fetched, which is the fault of the source, not of the clip; the shards
            finished so far are kept.
    """
    dataset = rows[0].dataset if rows else lock.name
    _check_policy(rows, settings)
    chunks = plan(rows, settings.clips_per_shard)
    with one_at_a_time(dataset, state_root):
        state = ExtractState(dataset, extraction_key(rows, settings), chunks, state_root)
        kept = sum(item.clips + len(item.rejected) for item in state.finished.values())
        bar = meter(f"extract {dataset}", len(rows), "clips", logger, done=kept)
        tick = ticker(bar, "quarantined", seen=len(_rejected(state)))
        todo = [chunk for chunk in chunks if chunk.number not in state.finished]
        if dask is not None:
            from erv.extract.dask_cluster import write_chunks_on_cluster

            finishing = write_chunks_on_cluster(
                todo, lock, settings, state.folder, address=dask, workers=workers, tick=tick
            )
        else:
            finishing = write_chunks(todo, lock, store, settings, state.folder, workers=workers, tick=tick)
        _check_share(state, len(rows), settings)
        with bar, closing(finishing):
            for finished in finishing:
                for clip_id, reason in finished.rejected:
                    logger.warning("quarantined %s %s: %s", dataset, clip_id, reason)
                state.complete(finished)
                _check_share(state, len(rows), settings)
        extracted = sum(finished.clips for finished in state.finished.values())
        rejected = _rejected(state)
        if extracted + len(rejected) != len(rows) or len(state.finished) != len(chunks):
            raise DataError(
                f"{len(rows)} clips in, {extracted} extracted and {len(rejected)} quarantined: clips were"
                " lost, please report this"
            )
        write_table(_quarantine_table(dataset, rows, rejected, excluded), quarantine)
        state.publish(shards)
    reasons = Counter(reason for _, reason in rejected)
    return Extracted(len(rows), extracted, dict(sorted(reasons.items())), len(excluded))


def quarantine_reasons(quarantine: Path) -> list[tuple[str, str]]:
    """Stage and kind of reason, the text before the first colon, of each clip in a quarantine file."""
    table = read_parquet(quarantine, "extract", ["stage", "reason"]).to_pylist()
    return [(row["stage"], row["reason"].partition(":")[0].strip()) for row in table]


def _check_policy(rows: Sequence[ClipRow], settings: ExtractSettings) -> None:
    """Fails now instead of after hours: folders of frames have no sound."""
    if rows and settings.missing_audio == "quarantine" and all(row.media == "frames" for row in rows):
        raise DataError(
            f"{rows[0].dataset}: all {len(rows)} clips are frame folders, which have no sound, and"
            " extract.missing_audio is quarantine; set it to mark"
        )


def _rejected(state: ExtractState) -> list[tuple[str, str]]:
    return [item for number in sorted(state.finished) for item in state.finished[number].rejected]


def _check_share(state: ExtractState, clips: int, settings: ExtractSettings) -> None:
    """Stops as soon as more clips are in quarantine than are allowed in total."""
    rejected = _rejected(state)
    if len(rejected) <= settings.max_quarantine_share * clips:
        return
    seen = sum(item.clips + len(item.rejected) for item in state.finished.values())
    shown = "; ".join(f"{clip_id}: {reason}" for clip_id, reason in rejected[:_SHOWN])
    raise DataError(
        f"{len(rejected)} of {clips} clips went into quarantine{_so_far(seen, clips)}, more than"
        f" extract.max_quarantine_share={settings.max_quarantine_share:g} allows ({shown});"
        " repair the source or raise the share"
    )


def _so_far(seen: int, clips: int) -> str:
    return "" if seen == clips else f", of the first {seen}"


def _quarantine_table(
    dataset: str,
    rows: Sequence[ClipRow],
    rejected: Iterable[tuple[str, str]],
    excluded: Iterable[Mapping[str, str]],
) -> pa.Table:
    """The clips left out by extract and by ingest, by clip id."""
    digests = {row.clip_id: row.sha256 for row in rows}
    common: dict[str, str | None] = {"dataset": dataset}
    records: list[dict[str, str | None]] = [
        common | {"clip_id": clip_id, "stage": "extract", "reason": reason, "sha256": digests[clip_id]}
        for clip_id, reason in rejected
    ]
    records += [
        common | {"clip_id": item["clip_id"], "stage": "ingest", "reason": item["reason"], "sha256": None}
        for item in excluded
    ]
    records.sort(key=lambda record: (record["clip_id"], record["stage"], record["reason"]))
    return pa.Table.from_pylist(records, schema=QUARANTINE_SCHEMA)
