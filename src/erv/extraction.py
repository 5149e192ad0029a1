"""Extraction: clips of a manifest become shards; what can't be decoded is quarantined with a reason."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from erv.data.manifest import ClipRow, write_table
from erv.data.sources import ObjectStore, fetch_all
from erv.errors import DataError
from erv.media import Decoded, DecodeRule, MediaError, decode
from erv.settings import ExtractSettings
from erv.shards import QUARANTINE_SCHEMA, Clip, ShardWriter
from erv.workers import isolated

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 5.0
_SHOWN = 5


@dataclass(frozen=True)
class Extracted:
    """Counts of an extraction: clips in, clips in the shards, clips in quarantine by reason."""

    clips: int
    extracted: int
    reasons: dict[str, int]

    @property
    def quarantined(self) -> int:
        """Clips in quarantine."""
        return sum(self.reasons.values())


@dataclass(frozen=True)
class _Task:
    row: ClipRow
    path: Path
    rule: DecodeRule


def extract(
    rows: Sequence[ClipRow],
    store: ObjectStore | None,
    settings: ExtractSettings,
    shards: Path,
    quarantine: Path,
) -> Extracted:
    """Decodes clips in worker processes and writes shards in the order of clip ids.

    The shards depend on the clips and the settings, not on the number of workers.

    Args:
        rows: of one data set, sorted by clip id.
        store: for clips in an object store.
        settings: the `extract` section.
        shards: folder to write; appears when complete.
        quarantine: parquet file of the clips left out, with reasons.

    Raises:
        DataError: more clips than allowed went into quarantine, a clip has no sound under `missing_audio:
        fail`,
            or clips were lost.
        StorageError: a clip can't be fetched. That is a fault of the source and not of the clip.
    """
    rule = DecodeRule(settings.frames, settings.size, settings.geometry, settings.sample_rate)
    rejected: list[tuple[ClipRow, str]] = []
    clock = _Progress(rows[0].dataset if rows else "", len(rows))
    with ShardWriter(shards, settings.clips_per_shard) as writer:
        for outcome in isolated(
            _decode,
            (_Task(row, path, rule) for row, path in zip(rows, fetch_all(rows, store), strict=True)),
            workers=settings.workers,
            seconds=settings.clip_timeout_seconds,
            expected=(MediaError,),
            prepare=_load_decoders,
        ):
            row, failure = outcome.item.row, outcome.failure
            if outcome.result is not None:
                failure = _add(writer, row, outcome.result, settings)
            if failure is not None:
                logger.warning("quarantined %s %s: %s", row.dataset, row.clip_id, failure)
                rejected.append((row, failure))
            clock.tick(len(rejected))
        if writer.clips + len(rejected) != len(rows):
            raise DataError(
                f"{len(rows)} clips in, {writer.clips} extracted and {len(rejected)} quarantined:"
                " clips were lost, please report this"
            )
        if len(rejected) > settings.max_quarantine_share * len(rows):
            shown = "; ".join(f"{row.clip_id}: {reason}" for row, reason in rejected[:_SHOWN])
            raise DataError(
                f"{len(rejected)} of {len(rows)} clips went into quarantine, more than"
                f" extract.max_quarantine_share={settings.max_quarantine_share:g} allows ({shown});"
                " repair the source or raise the share"
            )
        _write_quarantine(rejected, quarantine)
    return Extracted(len(rows), writer.clips, dict(sorted(Counter(reason for _, reason in rejected).items())))


def _add(writer: ShardWriter, row: ClipRow, decoded: Decoded, settings: ExtractSettings) -> str | None:
    """Adds a decoded clip; returns the reason when it is not wanted."""
    audio = decoded.audio
    if audio is None and settings.missing_audio == "fail":
        raise DataError(
            f"{row.dataset} clip {row.clip_id!r} has no sound; set extract.missing_audio to quarantine or"
            " mark"
        )
    if audio is None and settings.missing_audio == "quarantine":
        return "no sound"
    samples = np.zeros(0, np.int16) if audio is None else audio
    writer.add(Clip(row.clip_id, decoded.frames, samples, settings.sample_rate, has_audio=audio is not None))
    return None


def _load_decoders() -> None:
    """Imports what `decode` needs, before the clock of a clip runs."""
    import av  # noqa: F401
    import decord  # noqa: F401
    import PIL.Image  # noqa: F401


def _decode(task: _Task) -> Decoded:
    return decode(task.path, task.rule)


def _write_quarantine(rejected: Sequence[tuple[ClipRow, str]], path: Path) -> None:
    records = [
        {"clip_id": r.clip_id, "dataset": r.dataset, "stage": "extract", "reason": reason, "sha256": r.sha256}
        for r, reason in rejected
    ]
    write_table(pa.Table.from_pylist(records, schema=QUARANTINE_SCHEMA), path)


class _Progress:
    """A line every few seconds."""

    def __init__(self, dataset: str, total: int) -> None:
        self._dataset, self._total, self._done = dataset, total, 0
        self._started = self._said = time.monotonic()

    def tick(self, rejected: int) -> None:
        self._done += 1
        now = time.monotonic()
        if self._done < self._total and now - self._said < _SECONDS_BETWEEN_LINES:
            return
        self._said = now
        rate = self._done / max(now - self._started, 1e-9)
        logger.info(
            "extract %s: %d/%d clips, %d quarantined, %.0f clips/s",
            self._dataset,
            self._done,
            self._total,
            rejected,
            rate,
        )
