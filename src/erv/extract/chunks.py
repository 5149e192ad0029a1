"""Chunks of an extraction: the clips of one shard, decoded and written, here or on another machine.

Chunk i holds rows i*N up to (i+1)*N of the manifest and becomes shard i, minus the quarantined clips. So a
shard depends only on its own rows and can be written, kept and verified by itself. A chunk with no clips left
becomes a shard without rows; no number is skipped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from erv.determinism import code_of, code_version
from erv.errors import DataError
from erv.manifest import ClipRow
from erv.media.decode import DECODED, Decoded, DecodeRule, MediaError, decode_item, decode_task, loader
from erv.media.workers import isolated
from erv.settings import ExtractSettings
from erv.shards import Clip, ShardFile, shard_name
from erv.sources import CACHE, Lock, ObjectStore, fetch_all

_LIBRARIES = ("decord", "eva-decord", "av", "pillow", "numpy", "pyarrow")
_DECIDING = (
    "frames",
    "size",
    "geometry",
    "resize",
    "sample_rate",
    "short_folders",
    "missing_audio",
    "clip_timeout_seconds",
    "clip_memory_mb",
    "clips_per_shard",
)


@dataclass(frozen=True)
class Chunk:
    """The rows of one shard, in the order of the manifest."""

    number: int
    rows: tuple[ClipRow, ...]


@dataclass(frozen=True)
class Finished:
    """A chunk that is done.

    Attributes:
        number: number of the chunk and of its shard.
        clips: number of clips in the shard.
        rejected: clip id and reason of each quarantined clip, in the order of the rows.
    """

    number: int
    clips: int
    rejected: tuple[tuple[str, str], ...]


def plan(rows: Sequence[ClipRow], clips_per_shard: int) -> list[Chunk]:
    """Cuts rows into chunks; without rows, one empty chunk."""
    starts = range(0, len(rows), clips_per_shard) or [0]
    return [
        Chunk(number, tuple(rows[start : start + clips_per_shard])) for number, start in enumerate(starts)
    ]


def libraries(settings: ExtractSettings) -> tuple[str, ...]:
    """The libraries that, besides our code, decode clips and write shards."""
    return _LIBRARIES if settings.resize == "pillow" else (*_LIBRARIES, "torch")


def extraction_key(rows: Sequence[ClipRow], settings: ExtractSettings) -> str:
    """Hex sha256 of everything that decides the shards of a data set; workers, local or remote, don't."""
    digest = hashlib.sha256(code_version(code_of("extract"), libraries(settings)).encode())
    digest.update(json.dumps({name: getattr(settings, name) for name in _DECIDING}).encode())
    for row in rows:
        digest.update(json.dumps([row.dataset, row.clip_id, row.media, row.sha256]).encode())
    return digest.hexdigest()


def write_chunks(
    chunks: Sequence[Chunk],
    lock: Lock,
    store: ObjectStore | None,
    settings: ExtractSettings,
    folder: Path,
    *,
    workers: int,
    cache: Path = CACHE,
    tick: Callable[[bool], None] = lambda rejected: None,
) -> Generator[Finished, None, None]:
    """Decodes the clips of chunks in worker processes and writes each chunk's shard.

    Workers move from chunk to chunk without a pause.

    Args:
        chunks: chunks of one data set.
        lock: lock of its source.
        store: the object store that holds the clips, if they are in one.
        settings: the `extract` section.
        folder: where `shard-00000.parquet` and so on are written; one is complete when its chunk is yielded.
        workers: decoding processes.
        cache: of fetched clips.
        tick: called after each clip with whether it was quarantined.

    Raises:
        DataError: a clip has no sound under `missing_audio: fail`, or rows and lock do not belong together.
        StorageError: a clip can't be fetched, which is the fault of the source, not of the clip.
    """
    rule = DecodeRule(
        settings.frames,
        settings.size,
        settings.geometry,
        settings.sample_rate,
        settings.short_folders,
        settings.resize,
    )
    rows = [row for chunk in chunks for row in chunk.rows]
    fetched = fetch_all(rows, lock, store, cache=cache)
    outcomes = isolated(
        decode_item,
        (decode_task(path, rule) for path in fetched),
        workers=workers,
        seconds=settings.clip_timeout_seconds,
        memory_mb=settings.clip_memory_mb,
        expected=(MediaError,),
        prepare=loader(rule),
        confined=True,
        form=DECODED,
    )
    with closing(outcomes):
        for chunk in chunks:
            rejected = []
            with ShardFile(folder / shard_name(chunk.number)) as shard:
                for row in chunk.rows:
                    outcome = next(outcomes)
                    failure = outcome.failure
                    if outcome.result is not None:
                        failure = _add(shard, row, outcome.result, settings)
                    if failure is not None:
                        rejected.append((row.clip_id, failure))
                    tick(failure is not None)
            yield Finished(chunk.number, shard.clips, tuple(rejected))


def _add(shard: ShardFile, row: ClipRow, decoded: Decoded, settings: ExtractSettings) -> str | None:
    """Adds a decoded clip; returns the reason if it is rejected."""
    audio = decoded.audio
    if audio is None and settings.missing_audio == "fail":
        raise DataError(
            f"{row.dataset} clip {row.clip_id!r} has no sound; set extract.missing_audio to quarantine or"
            " mark"
        )
    if audio is None and settings.missing_audio == "quarantine":
        return "no sound"
    samples = np.zeros(0, np.int16) if audio is None else audio
    shard.add(Clip(row.clip_id, decoded.frames, samples, settings.sample_rate, has_audio=audio is not None))
    return None
