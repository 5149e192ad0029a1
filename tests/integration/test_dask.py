"""Extraction on a real Dask cluster: a scheduler and workers in processes of their own."""

from __future__ import annotations

import dataclasses
import os
import platform
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from distributed import Client

from erv.environment import Environment
from erv.errors import DataError, StorageError
from erv.extract import dask_cluster
from erv.extract.extract import extract
from erv.storage.store import open_store
from tests.support.clips import copy_tree, pinned, same_files, settings, write_clips
from tests.support.paths import ROOT
from tests.support.small_disk import on_small_disk

pytestmark = pytest.mark.integration
DASK = str(Path(sys.executable).with_name("dask"))


class Cluster:
    """A scheduler, and workers under their nannies as `dask worker` starts them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder / "scheduler.log"
        self._processes = [self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")]
        self.address = self._find(r"Scheduler at:\s+(tcp://\S+)")

    def _start(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        with (self._folder / f"{arguments[0]}.log").open("ab") as log:
            return subprocess.Popen(
                [DASK, *arguments],
                cwd=self._folder,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", **environment},
            )

    def _find(self, pattern: str) -> str:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found = re.search(pattern, self._log.read_text() if self._log.exists() else "")
            if found:
                return found[1]
            time.sleep(0.1)
        raise AssertionError(self._log.read_text())

    def add_worker(self, **environment: str) -> subprocess.Popen[bytes]:
        worker = self._start(
            "worker",
            self.address,
            "--nthreads",
            "1",
            "--no-dashboard",
            "--host",
            "127.0.0.1",
            "--local-directory",
            str(self._folder),
            **environment,
        )
        self._processes.append(worker)
        return worker

    def stop(self) -> None:
        for process in reversed(self._processes):
            children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            process.terminate()
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for child in children:
                if child.is_running():
                    child.kill()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    (tmp_path / "cluster").mkdir()
    cluster = Cluster(tmp_path / "cluster")
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_clips(tmp_path / "raw", 17)
    (tmp_path / "raw" / "00003.mp4").write_bytes(b"not a film")
    return tmp_path / "raw"


@contextmanager
def meanwhile(act: Callable[[], bool]) -> Iterator[None]:
    """Calls `act` again and again until it is true, which it must become while the block runs."""
    stop, done = threading.Event(), []

    def watch() -> None:
        while not done and not stop.wait(0.02):
            if act():
                done.append(True)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert done


def run(source: Path, out: str, *, workers: int = 2, dask: str | None = None):
    rows, lock = pinned(source)
    state = Path(".erv/extract" if dask else "of-this-machine")  # else the shards would be kept
    return extract(
        rows,
        lock,
        None,
        settings(),
        Path(out),
        Path(f"{out}.parquet"),
        workers=workers,
        dask=dask,
        state_root=state,
    )


@pytest.mark.slow
def test_a_cluster_gives_the_same_bytes(cluster: Cluster, source: Path) -> None:
    run(source, "here")
    cluster.add_worker()
    cluster.add_worker()
    there = run(source, "there", dask=cluster.address, workers=1)
    assert (there.clips, there.extracted, there.quarantined) == (17, 16, 1)
    assert same_files(Path("here"), Path("there"))
    assert Path("here.parquet").read_bytes() == Path("there.parquet").read_bytes()


@pytest.mark.slow
def test_a_killed_worker_costs_no_clip(cluster: Cluster, source: Path) -> None:
    write_clips(source, 120)
    run(source, "here")
    cluster.add_worker()
    victim = cluster.add_worker()

    def kill() -> bool:
        # The process that works is the child of the nanny.
        children = psutil.Process(victim.pid).children(recursive=True)
        if not children or not list(Path(".erv/extract").rglob("*.json")):
            return False
        children[0].kill()
        return True

    with meanwhile(kill):
        there = run(source, "there", dask=cluster.address, workers=1)
    assert there.clips == 120
    assert same_files(Path("here"), Path("there"))


@pytest.mark.slow
def test_a_machine_that_goes_costs_no_clip(cluster: Cluster, source: Path) -> None:
    """The worker and its nanny are killed: nobody starts another one."""
    write_clips(source, 120)
    run(source, "here")
    cluster.add_worker()
    victim = psutil.Process(cluster.add_worker().pid)

    def kill() -> bool:
        gone = [victim, *victim.children(recursive=True)]
        if len(gone) == 1 or not list(Path(".erv/extract").rglob("*.json")):
            return False
        for process in gone:
            process.kill()
        return True

    with meanwhile(kill):
        there = run(source, "there", dask=cluster.address, workers=1)
    assert there.clips == 120
    assert same_files(Path("here"), Path("there"))


@pytest.mark.slow
def test_workers_that_come_later_work_too(cluster: Cluster, source: Path) -> None:
    write_clips(source, 400)
    cluster.add_worker()
    added: list[subprocess.Popen[bytes]] = []

    def all_three_work() -> bool:
        if not added and list(Path(".erv/extract").rglob("*.json")):
            added.extend(cluster.add_worker() for _ in range(2))
        return len(added) == 2 and sum(map(bool, observer.processing().values())) == 3

    with Client(cluster.address, set_as_default=False) as observer, meanwhile(all_three_work):
        run(source, "there", dask=cluster.address, workers=1)


def test_a_full_disk_of_a_worker_is_told_as_that(source: Path, tmp_path: Path) -> None:
    """The stage would otherwise ask to free space on the machine of the coordinator."""
    done = on_small_disk(
        tmp_path / "small", 40, "-c", ON_A_FULL_DISK, cwd=tmp_path, PYTHONPATH=f"{ROOT}:{ROOT / 'src'}"
    )
    said = done.stdout.partition("left:")[0].strip()
    assert said == (
        f"machine.extract.dask (tcp://there): the worker on {platform.node()} can't go on, no room is left in"
        f" {tmp_path / 'small'}; mend that there and run extract again, finished shards are kept"
    ), done.stderr


ON_A_FULL_DISK = """
import os, pickle
from pathlib import Path
from types import SimpleNamespace
from erv.determinism import code_version
from erv.errors import DataError, full_disk
from erv.extract.chunks import libraries, plan
from erv.extract.dask_cluster import ChunkTask, _result, run_chunk
from tests.support.clips import pinned, settings

os.environ["TMPDIR"] = str(Path("small").absolute())
rows, lock = pinned(Path("raw").absolute())
version = code_version((), libraries(settings()))
task = ChunkTask(plan(rows, 5)[1], lock, settings(), 1, (), version)

def answer():
    try:
        return run_chunk(task)
    except DataError as error:
        raise pickle.loads(pickle.dumps(error))

try:
    _result(SimpleNamespace(result=answer), "tcp://there")
except DataError as error:
    print(error if full_disk(error) is None else "taken for ours: " + full_disk(error))
"""


@pytest.mark.slow
def test_workers_read_s3_themselves(cluster: Cluster, stack: Environment, source: Path) -> None:
    run(source, "here")
    store = open_store(stack)
    uri = f"s3://{stack.raw_bucket}/dask"
    store.mirror_tree(source, uri)
    rows, lock = pinned(source, store=store, uri=uri)
    cluster.add_worker(**stack.variables())
    there = {"workers": 2, "dask": cluster.address}
    # No store here, and none needed.
    extract(rows, lock, None, settings(), Path("there"), Path("there.parquet"), **there)
    assert same_files(Path("here"), Path("there"))
    # An object that is lost is a fault of the source: no clip is quarantined for it.
    store.delete(lock.uri_of("00009.mp4"))
    (changed,) = (row for row in rows if row.clip_id == "00009")
    file = dataclasses.replace(lock.find("00009.mp4"), sha256="0" * 64, version_id=None)
    files = tuple(file if file.path == other.path else other for other in lock.files)
    lost = dataclasses.replace(lock, files=files)
    rows[rows.index(changed)] = dataclasses.replace(changed, sha256="0" * 64)
    with pytest.raises(StorageError, match=r"machine\.extract\.dask .*00009\.mp4"):
        extract(rows, lost, None, settings(), Path("lost"), Path("lost.parquet"), **there)
    assert not Path("lost").exists()


@pytest.mark.slow
def test_what_is_wrong_with_a_cluster_is_one_sentence(cluster: Cluster, source: Path) -> None:
    with pytest.raises(
        DataError, match=r"machine\.extract\.dask: no Dask scheduler answers at tcp://127\.0\.0\.1:9 "
    ):
        run(source, "s", dask="tcp://127.0.0.1:9")
    other = copy_tree(ROOT / "src", source.parent / "other")
    with (other / "erv" / "media.py").open("a") as stream:
        stream.write("# another version\n")
    cluster.add_worker(PYTHONPATH=f"{other}:{ROOT}")
    with pytest.raises(DataError, match=r"a worker has another version of erv, decord"):
        run(source, "s", dask=cluster.address)
    assert not Path("s").exists()


CONNECT = """
import sys
from erv.extract import dask_cluster
from erv.errors import DataError
dask_cluster._CONNECT_SECONDS = 2
try:
    with dask_cluster._connected(sys.argv[1]):
        print("connected")
except DataError as error:
    print(error)
"""


@pytest.mark.parametrize("kind", ["nobody", "mute", "unknown host", "no certificate", "no port"])
def test_an_address_where_no_scheduler_answers_leaves_nothing_behind(kind: str) -> None:
    """One sentence and no more, up to the end of the process."""
    with socket.create_server(("127.0.0.1", 0)) as mute:  # takes connections and says nothing
        address = {
            "nobody": "tcp://127.0.0.1:9",
            "mute": f"tcp://127.0.0.1:{mute.getsockname()[1]}",
            "unknown host": "tcp://no-such-host.invalid:8786",
            "no certificate": "tls://127.0.0.1:9",
            "no port": "localhost",
        }[kind]
        done = subprocess.run(
            [sys.executable, "-c", CONNECT, address], capture_output=True, text=True, timeout=60
        )
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"machine.extract.dask: no Dask scheduler answers at {address} (")
    assert done.returncode == 0


def test_a_cluster_without_workers_is_reported_at_once(
    cluster: Cluster, source: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_cluster, "_SECONDS_WITHOUT_WORKER", 1)
    start = f"start some with `dask worker {cluster.address} --nthreads 1`"
    with pytest.raises(DataError, match=re.escape(f"{cluster.address} has no worker; {start}")):
        run(source, "s", dask=cluster.address)
    assert f"the scheduler at {cluster.address} has no worker, waiting 1 s for one; {start}" in caplog.text


@pytest.mark.slow
def test_a_source_that_a_worker_cannot_read_is_named(cluster: Cluster, source: Path) -> None:
    rows, lock = pinned(source)
    (source / "00012.mp4").unlink()
    cluster.add_worker()
    with pytest.raises(DataError, match=r"machine\.extract\.dask .*00012.mp4: file not found"):
        extract(rows, lock, None, settings(), Path("s"), Path("q"), workers=2, dask=cluster.address)
