"""Extraction with Ray Data, to compare: what `erv.extract.dask_cluster` would be on that engine.

- `chunks_on_ray`: a row is a chunk, the task is the one that Dask runs
- `clips_on_ray`: a row is a clip, as Ray's guides do it; actors decode batches, this process writes shards
- `bare_on_ray`: the same without processes for the decoders: Ray's own isolation alone. For the drill only

All give the chunks of `erv.extract.chunks.write_chunks`. It needs `pip install "ray[data]"`.
"""

from __future__ import annotations

import os
import pickle
import secrets
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

# Before Ray is imported. It reports its use to its makers otherwise, and takes 127.0.0.1 for a request to be
# reachable from elsewhere. Its key stays in this process and its children instead of in the home folder. Its
# workers are as nice as those of the other engines, instead of by 15, and on a busy machine it may take
# its time to start.
os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_worker_niceness": "0",
    "RAY_raylet_start_wait_time_s": "300",
}

import numpy as np
import ray
import ray.data

from erv.determinism import PACKAGE, code_of, code_version
from erv.extract.chunks import Chunk, Finished, libraries
from erv.extract.dask_cluster import ChunkTask, _part, run_chunk
from erv.manifest import ClipRow
from erv.media.decode import DECODED, DecodeRule, MediaError, decode_item, decode_task, loader
from erv.media.workers import isolated
from erv.settings import ExtractSettings
from erv.shards import Clip, ShardFile, shard_name
from erv.sources import Lock, fetch_all, store_for

# Room for the results on their way, in bytes. Ray's default is 30% of the machine's memory.
_OBJECTS = 1_000_000_000


def start(workers: int, scratch: str) -> None:
    """Starts Ray on this machine for so many tasks at a time, reachable from this machine alone."""
    ray.init(
        num_cpus=workers,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=_OBJECTS,
        _node_ip_address="127.0.0.1",
        _temp_dir=scratch,
    )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False


def chunks_on_ray(
    chunks: Sequence[Chunk], lock: Lock, settings: ExtractSettings, folder: Path, workers: int
) -> Generator[Finished, None, None]:
    """A task per chunk, which gives the bytes of its shard; they come as they finish."""
    code = tuple(path for path in code_of("extract") if path.startswith(PACKAGE))
    version = code_version(code, libraries(settings))
    tasks = [ChunkTask(chunk, _part(lock, chunk), settings, 1, code, version) for chunk in chunks]
    items = [{"task": pickle.dumps(task)} for task in tasks]
    made = ray.data.from_items(items, override_num_blocks=len(items)).map(_chunk, concurrency=workers)
    for row in made.iter_rows():
        finished: Finished = pickle.loads(row["finished"])  # noqa: S301
        (folder / shard_name(finished.number)).write_bytes(row["content"])
        yield finished


def _chunk(row: dict[str, Any]) -> dict[str, bytes]:
    content, finished = run_chunk(pickle.loads(row["task"]))  # noqa: S301
    return {"content": content, "finished": pickle.dumps(finished)}


def clips_on_ray(
    chunks: Sequence[Chunk],
    lock: Lock,
    settings: ExtractSettings,
    folder: Path,
    workers: int,
    *,
    isolate: bool = True,
) -> Generator[Finished, None, None]:
    """A row per clip; actors answer in the order of the rows, and this process writes the shards."""
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    items = [{"row": pickle.dumps(row)} for chunk in chunks for row in chunk.rows]
    decoded = ray.data.from_items(items, override_num_blocks=len(chunks)).map_batches(
        Decoder,
        fn_constructor_args=(ray.put(lock), settings, isolate),
        batch_size=None,  # a block, which is as large as a shard
        concurrency=workers,
    )
    answers = iter(decoded.iter_rows())
    shape = (settings.frames, settings.size, settings.size, 3)
    for chunk in chunks:
        rejected = []
        with ShardFile(folder / shard_name(chunk.number)) as shard:
            for row in chunk.rows:
                answer = next(answers)
                if answer["failure"] is not None:
                    rejected.append((row.clip_id, answer["failure"]))
                    continue
                frames = np.frombuffer(answer["frames"], np.uint8).reshape(shape)
                audio = np.frombuffer(answer["audio"], np.int16)
                shard.add(Clip(row.clip_id, frames, audio, settings.sample_rate))
        yield Finished(chunk.number, shard.clips, tuple(rejected))


def bare_on_ray(
    chunks: Sequence[Chunk], lock: Lock, settings: ExtractSettings, folder: Path, workers: int
) -> Generator[Finished, None, None]:
    """As `clips_on_ray`, but decoding in Ray's own processes, which a file may crash or take over."""
    return clips_on_ray(chunks, lock, settings, folder, workers, isolate=False)


class Decoder:
    """An actor: rows of clips in, frames, sound and reasons out; clips without sound are rejected."""

    def __init__(self, lock: Any, settings: ExtractSettings, isolate: bool) -> None:
        self._lock: Lock = ray.get(lock)
        self._store = store_for([self._lock.uri])
        self._settings, self._isolate = settings, isolate
        self._rule = DecodeRule(
            settings.frames,
            settings.size,
            settings.geometry,
            settings.sample_rate,
            settings.short_folders,
            settings.resize,
        )

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Decodes the clips of a batch."""
        rows = [pickle.loads(row) for row in batch["row"]]  # noqa: S301
        made: dict[str, list[Any]] = {"frames": [], "audio": [], "failure": []}
        for decoded, failure in self._decoded(rows):
            silent = failure is None and decoded.audio is None
            kept = failure is None and not silent
            made["frames"].append(decoded.frames.tobytes() if kept else b"")
            made["audio"].append(decoded.audio.tobytes() if kept else b"")
            made["failure"].append("no sound" if silent else failure)
        return made

    def _decoded(self, rows: Sequence[ClipRow]) -> Iterator[tuple[Any, str | None]]:
        fetched = fetch_all(rows, self._lock, self._store)
        tasks = (decode_task(path, self._rule) for path in fetched)
        if not self._isolate:
            for task in tasks:
                try:
                    yield decode_item(task), None
                except MediaError as error:
                    yield None, str(error)
            return
        outcomes = isolated(
            decode_item,
            tasks,
            workers=1,
            seconds=self._settings.clip_timeout_seconds,
            memory_mb=self._settings.clip_memory_mb,
            expected=(MediaError,),
            prepare=loader(self._rule),
            confined=True,
            form=DECODED,
        )
        with closing(outcomes):
            for outcome in outcomes:
                yield outcome.result, outcome.failure
