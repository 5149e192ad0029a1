"""A process that runs one engine: it starts it, says so, and extracts the chunks that it is told to.

`benchmarks.extract_engines` starts it. A line on stdin is `{"first": 0, "last": 16, "folder": "..."}`, one on
stdout the answer; anything else that is printed goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `benchmarks` and `tests`

from erv.extract.chunks import Chunk, Finished, plan, write_chunks
from erv.settings import load_settings
from erv.sources import Lock
from tests.support.clips import row_of

# The engines: a start, and what extracts chunks into a folder.
Extract = Callable[[list[Chunk], Path], Iterable[Finished]]
ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def local(lock: Lock, settings: Any, workers: int) -> Iterator[Extract]:
    """Decoding processes of this machine, the product's default."""
    yield lambda chunks, folder: write_chunks(chunks, lock, None, settings, folder, workers=workers)


@contextmanager
def dask(lock: Lock, settings: Any, workers: int) -> Iterator[Extract]:
    """The product's other engine, on a cluster of this machine: a scheduler, and workers under nannies."""
    from distributed import LocalCluster

    from erv.extract.dask_cluster import write_chunks_on_cluster

    with (
        TemporaryDirectory(prefix="erv-dask-") as scratch,
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            local_directory=scratch,
        ) as cluster,
    ):
        yield lambda chunks, folder: write_chunks_on_cluster(
            chunks,
            lock,
            settings,
            folder,
            address=cluster.scheduler_address,
            workers=1,
            tick=lambda rejected: None,
        )


def on_ray(name: str) -> Any:
    """One of the ways in `on_ray`."""

    @contextmanager
    def engine(lock: Lock, settings: Any, workers: int) -> Iterator[Extract]:
        from benchmarks.engines import on_ray as module

        way = getattr(module, name)
        with TemporaryDirectory(prefix="erv-ray-", ignore_cleanup_errors=True) as scratch:
            module.start(workers, scratch)
            try:
                yield lambda chunks, folder: way(chunks, lock, settings, folder, workers)
            finally:
                module.ray.shutdown()

    return engine


ENGINES = {
    "local": local,
    "dask": dask,
    "ray-chunks": on_ray("chunks_on_ray"),
    "ray-clips": on_ray("clips_on_ray"),
    "ray-bare": on_ray("bare_on_ray"),
}


def main() -> None:
    """Serves until stdin ends."""
    name, lock_file, workers = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(value: dict[str, Any]) -> None:
        print(json.dumps(value), file=answers, flush=True)

    lock = Lock.load(Path(lock_file))
    settings = load_settings(ROOT / "params.yaml").extract
    rows = [row_of(lock, file.path) for file in lock.files]
    chunks = plan(rows, settings.clips_per_shard)
    with ENGINES[name](lock, settings, int(workers)) as extract:
        answer({"chunks": len(chunks)})
        for line in sys.stdin:
            asked = json.loads(line)
            began = time.perf_counter()
            try:
                done = list(extract(chunks[asked["first"] : asked["last"]], Path(asked["folder"])))
            except Exception as error:  # for the drill, which shows how a run fails
                answer({"failed": f"{type(error).__name__}: {error}"[-600:]})
                continue
            answer(
                {
                    "seconds": time.perf_counter() - began,
                    "clips": sum(item.clips for item in done),
                    "rejected": sorted(pair for item in done for pair in item.rejected),
                }
            )


if __name__ == "__main__":
    main()
