"""Extraction on a Dask cluster: each chunk is a task, the coordinator writes the shards.

What it needs: `pip install erv[dask]` here, on the scheduler and on the workers, in equal versions, which is
checked. A scheduler (`dask scheduler`) and workers (`dask worker tcp://HOST:8786 --nthreads 1`); one thread
each, since a task itself starts `machine.extract.workers` decoding processes. Those are plain child
processes, so a worker may run under its nanny, which `multiprocessing` would forbid. Workers read the sources
themselves: from S3 with their own environment, or from the same path as here.

Security: Dask moves pickles between coordinator, scheduler and workers, so anyone who reaches the scheduler's
port can run code on all of them. Bind it to a private address, or use Dask's TLS; connect only to a cluster
that you trust.
"""

from __future__ import annotations

import logging
import platform
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from erv.determinism import PACKAGE, code_of, code_version
from erv.errors import DataError, StorageError, full_disk
from erv.extract.chunks import Chunk, Finished, libraries, write_chunks
from erv.settings import ExtractSettings
from erv.shards import shard_name
from erv.sources import Lock, store_for

logger = logging.getLogger(__name__)

_CONNECT_SECONDS = 15
_SECONDS_WITHOUT_WORKER = 60.0
_POLL_SECONDS = 2.0
# Chunks in flight per worker: one that runs, one that waits.
_PER_WORKER = 2
_COMPARED = ("distributed", "cloudpickle", "msgpack")


@dataclass(frozen=True)
class ChunkTask:
    """What a worker gets: rows, their part of the lock, how to decode, and the code that it must have."""

    chunk: Chunk
    lock: Lock
    settings: ExtractSettings
    workers: int
    code: tuple[str, ...]
    version: str


def run_chunk(task: ChunkTask) -> tuple[bytes, Finished]:
    """Makes the shard of a chunk on a worker; returns the file's bytes and the counts.

    Raises:
        DataError: the worker has different code or versions, or can't write, or as `write_chunks`.
        StorageError: as `write_chunks`.
    """
    if code_version(task.code, libraries(task.settings)) != task.version:
        raise DataError(
            "a worker has another version of erv, decord, av, pillow, numpy or pyarrow than this machine;"
            " install the same requirements/*.lock on both"
        )
    store = store_for([task.lock.uri])
    try:
        with tempfile.TemporaryDirectory(prefix="erv-extract-") as folder:
            chunks = write_chunks(
                [task.chunk], task.lock, store, task.settings, Path(folder), workers=task.workers
            )
            finished = next(chunks)
            return (Path(folder) / shard_name(task.chunk.number)).read_bytes(), finished
    except OSError as error:
        trouble = _trouble_here(error)
    # Not within the handler: whoever finds the system's error behind this one takes it for one of their own.
    raise DataError(trouble)


def _trouble_here(error: OSError) -> str:
    """What ails the machine of a worker, in words that nobody takes for the coordinator's trouble."""
    what = _first_line(error) if full_disk(error) is None else f"no room is left in {tempfile.gettempdir()}"
    return (
        f"the worker on {platform.node()} can't go on, {what}; mend that there and run extract again,"
        " finished shards are kept"
    )


def write_chunks_on_cluster(
    chunks: Sequence[Chunk],
    lock: Lock,
    settings: ExtractSettings,
    folder: Path,
    *,
    address: str,
    workers: int,
    tick: Callable[[bool], None],
) -> Generator[Finished, None, None]:
    """As `erv.extract.chunks.write_chunks`, on the cluster at `address`; chunks come as they finish.

    Raises:
        DataError: no cluster answers, versions differ, its workers die, or as `write_chunks`.
        StorageError: a worker can't fetch a clip.
    """
    if not chunks:
        return
    code = tuple(path for path in code_of("extract") if path.startswith(PACKAGE))  # that workers have too
    version = code_version(code, libraries(settings))
    with _connected(address) as client:
        _check_versions(client, address)
        logger.info("extract: %d chunks on the Dask cluster at %s", len(chunks), address)
        waiting = list(reversed(chunks))
        running: set[Any] = set()
        while waiting or running:
            limit = _PER_WORKER * max(1, len(client.nthreads()))  # workers come and go
            while waiting and len(running) < limit:
                chunk = waiting.pop()
                task = ChunkTask(chunk, _part(lock, chunk), settings, workers, code, version)
                running.add(client.submit(run_chunk, task, pure=False))
            done = _first_done(client, running, address)
            for future in done:
                content, finished = _result(future, address)
                (folder / shard_name(finished.number)).write_bytes(content)
                for index in range(finished.clips + len(finished.rejected)):
                    tick(index < len(finished.rejected))
                yield finished
            running -= done


def _part(lock: Lock, chunk: Chunk) -> Lock:
    """The lock with only the files of a chunk: the lock of a whole data set takes megabytes."""
    files = {}
    for row in chunk.rows:
        file = lock.by_uri.get(row.uri)
        if file is None:
            continue  # `fetch_all` reports it
        files[file.path] = file
        if file.archive is not None:
            files[file.archive] = lock.find(file.archive)
    return replace(lock, files=tuple(files[path] for path in sorted(files)))


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    try:
        from distributed import Client
        from distributed.comm.core import CommClosedError
        from distributed.security import Security
        from distributed.utils import LoopRunner
    except ImportError:
        raise DataError(
            "machine.extract.dask is set and Dask is not installed; run `pip install erv[dask]` or set it to"
            " null"
        ) from None
    lost = (
        f"machine.extract.dask: the Dask scheduler at {address} went away; start it again and run extract"
        " again, finished shards are kept"
    )
    start = f"start some with `dask worker {address} --nthreads 1`"
    security = Security()
    try:
        # A client that can't connect can't be closed quickly, and one that gets no answer waits forever.
        LoopRunner().run_sync(_shake_hands, address, security, callback_timeout=_CONNECT_SECONDS)
        client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False, security=security)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise DataError(
            f"machine.extract.dask: no Dask scheduler answers at {address} ({_first_line(error)});"
            " start one with `dask scheduler`, correct the address, or set machine.extract.dask to null"
        ) from error
    try:
        if not client.nthreads():
            logger.warning(
                "extract: the scheduler at %s has no worker, waiting %.0f s for one; %s",
                address,
                _SECONDS_WITHOUT_WORKER,
                start,
            )
            _wait_for_a_worker(client, address, start)
        yield client
    except (CommClosedError, CancelledError) as error:
        raise DataError(lost) from error
    finally:
        client.close(timeout=_CONNECT_SECONDS)


async def _shake_hands(address: str, security: Any) -> None:
    """Raises OSError if no scheduler answers, ValueError or TypeError if the address is malformed."""
    from distributed.comm import connect

    comm = await connect(address, timeout=_CONNECT_SECONDS, **security.get_connection_args("client"))
    await comm.close()


def _wait_for_a_worker(client: Any, address: str, start: str) -> None:
    try:
        client.wait_for_workers(1, timeout=_SECONDS_WITHOUT_WORKER)
    except TimeoutError as error:
        raise DataError(f"machine.extract.dask: the scheduler at {address} has no worker; {start}") from error


def _check_versions(client: Any, address: str) -> None:
    """Raises DataError if versions differ, since Dask is not tested across versions and may not work."""
    versions = client.get_versions(packages=list(_COMPARED))
    ours = _compared(versions["client"])
    for name, theirs in {address: versions["scheduler"], **versions["workers"]}.items():
        found = _compared(theirs)
        different = [part for part in ours if found.get(part) != ours[part]]
        if different:
            part = different[0]
            raise DataError(
                f"machine.extract.dask: {name} has {part} {found.get(part)}, this machine"
                f" {ours[part]}; install the same requirements/*.lock on both"
            )


def _compared(versions: Any) -> dict[str, Any]:
    host, packages = dict(versions["host"]), dict(versions["packages"])
    python = ".".join(str(host["python"]).split(".")[:2])
    return {"python": python} | {name: packages.get(name) for name in _COMPARED}


def _first_done(client: Any, running: set[Any], address: str) -> set[Any]:
    """Waits until a chunk is done; gives up after a while without workers."""
    from distributed import wait

    alone_since: float | None = None
    while True:
        try:
            with client.as_current():
                return set(wait(list(running), timeout=_POLL_SECONDS, return_when="FIRST_COMPLETED").done)
        except TimeoutError:
            pass
        if client.status != "running":
            raise CancelledError
        now = time.monotonic()
        alone_since = None if client.nthreads() else alone_since or now
        if alone_since is not None and now - alone_since > _SECONDS_WITHOUT_WORKER:
            raise DataError(
                f"machine.extract.dask: the workers at {address} are gone; start some again with `dask worker"
                f" {address} --nthreads 1` and run extract again, finished shards are kept"
            )


def _result(future: Any, address: str) -> tuple[bytes, Finished]:
    from distributed import KilledWorker

    try:
        content, finished = future.result()
    except (DataError, StorageError) as error:
        raise type(error)(f"machine.extract.dask ({address}): {error}") from error
    except KilledWorker as error:
        raise DataError(
            f"machine.extract.dask: workers at {address} died over and over on one chunk; look into"
            " their logs (memory of their machines?), or set machine.extract.dask to null"
        ) from error
    except ModuleNotFoundError as error:
        raise DataError(
            f"machine.extract.dask: a worker at {address} lacks the module {error.name!r}; install the same"
            " requirements/*.lock there"
        ) from error
    return content, finished


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
