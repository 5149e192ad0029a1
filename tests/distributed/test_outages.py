"""Servers that go away, a disk that fills up and a clock that is wrong: waited for, or told in a sentence."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from erv.environment import Environment
from erv.stack import status, up
from tests.distributed.databases import Databases
from tests.distributed.topology import Clone, Worker, wait_until
from tests.support.paths import ROOT

pytestmark = [pytest.mark.distributed, pytest.mark.integration]


def servers(stack: Environment, *names: str) -> list[psutil.Process]:
    """The processes of servers; to find them takes seconds."""
    found = [psutil.Process(one.pid) for one in status(stack.workspace) if one.name in names and one.pid]
    return [one for server in found for one in (server, *server.children(recursive=True))]


def kill(processes: list[psutil.Process]) -> None:
    for one in processes:
        os.kill(one.pid, signal.SIGKILL)


@pytest.fixture(autouse=True)
def _all_servers(stack: Environment) -> Iterator[None]:
    yield
    up(stack.workspace)  # whatever a test killed


def test_s3_is_restarted_in_the_middle_of_a_push(
    stack: Environment, clone: Clone, new_worker: Callable[..., Worker]
) -> None:
    clone.control("tune", "2 0.1 big 400")
    clone.commit()
    worker, s3 = new_worker(), servers(stack, "s3")
    run = clone.start("run")
    try:
        worker.background.wait_for("storing the outputs", 120)
        wait_until(clone.is_sending, 60, "an object that is on its way")
        kill(s3)
        time.sleep(3)
        waits = "can't be reached" in worker.background.text() or "trying again" in worker.background.text()
        assert worker.pushes() or waits, "it had come to its end before"
        up(stack.workspace)
        assert run.process.wait(300) == 0, run.text() + worker.background.text()
    finally:
        run.end()
    assert "3 stages: 3 ran" in run.text() or "1 restored" in run.text()
    assert (clone.folder / "trained/big.bin").stat().st_size == 400_000_000
    assert "up to date" in clone.dvc("status")
    assert "in sync" in clone.dvc("status", "--cloud")


def test_mlflow_and_prefect_are_down_for_a_minute(
    stack: Environment, clone: Clone, new_worker: Callable[..., Worker], databases: Databases
) -> None:
    """With their database, which loses its power meanwhile."""
    clone.control("tune", "45 1")
    clone.commit()
    worker = new_worker()
    run = clone.start("run")
    try:
        run.wait_for("step 2", 120)
        kill(servers(stack, "mlflow", "prefect"))
        databases.server.restart()
        time.sleep(60)
        up(stack.workspace)
        assert run.process.wait(300) == 0, run.text() + worker.background.text()
    finally:
        run.end()
    assert "3 stages: 3 ran" in run.text()
    assert "can't be reached" in run.text()
    (tuned,) = clone.runs()["tune"]
    assert tuned.info.status == "FINISHED"
    assert tuned.data.metrics["loss"] == pytest.approx(1 / 45)
    assert "erv.lock_entry" in tuned.data.tags
    assert list((worker.home / "checkouts").iterdir()) == []


def test_a_full_disk_on_the_worker(clone: Clone, new_worker: Callable[..., Worker]) -> None:
    clone.control("tune", "2 0.1 big 900")
    clone.commit()
    worker = new_worker(small_disk="620m")
    said = clone.erv("run", check=False)
    assert said.returncode == 1
    assert "tune: the disk of the worker is full or its quota is used up" in said.stderr, said.stderr
    assert f": {worker.home}, " in said.stderr
    assert f"free space there, e.g. by deleting {worker.home}/cache" in said.stderr
    assert not (clone.folder / "trained").exists()
    assert "tune" not in (clone.folder / "dvc.lock").read_text()
    worker.end()
    roomy = new_worker()
    done = clone.erv("run", check=False)
    assert done.returncode == 0, done.stdout + done.stderr + roomy.background.text()


@pytest.mark.parametrize("hours", [1, -1])
def test_a_worker_whose_clock_is_an_hour_off(
    hours: int, clone: Clone, new_worker: Callable[..., Worker]
) -> None:
    """S3 refuses what it signs. It doesn't start, and if its clock jumps later, another does its stage."""
    clone.control("tune", "40 1")
    clone.commit()
    path = os.pathsep.join([str(ROOT / "tests/chaos/clock"), str(ROOT / "src"), str(ROOT)])
    with pytest.raises(AssertionError, match="the clock of this machine differs from that of http"):
        new_worker(ERV_CHAOS_CLOCK=f"{hours * 3600},0", PYTHONPATH=path)
    jumping = new_worker(ERV_CHAOS_CLOCK=f"{hours * 3600},25", PYTHONPATH=path)
    run = clone.start("run")
    try:
        run.wait_for(f":{jumping.home}", 120)
        good = new_worker()
        run.wait_for("another worker is asked", 150)
        assert run.process.wait(300) == 0, run.text() + good.background.text()
    finally:
        run.end()
    # In its own shell alone, if it was given up before it could say so.
    assert "differs from that of http" in run.text() + jumping.background.text()
    # Whoever gets it next goes on; the one with the wrong clock may have finished the stage by then.
    assert "3 stages: 3 ran" in run.text() or "2 ran, 1 restored" in run.text()
    assert "up to date" in clone.dvc("status")
