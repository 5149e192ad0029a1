"""A cancellation reaches the worker, and all that its stage has started, within ten seconds."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from erv.environment import Environment
from tests.distributed.topology import Clone, Worker, gone, runs_of_pool, wait_until
from tests.integration.prefect_api import ask

pytestmark = [pytest.mark.distributed, pytest.mark.integration]


@pytest.mark.parametrize("how", ["Ctrl-C", "Prefect"])
def test_a_cancellation_ends_the_remote_tree(
    how: str, stack: Environment, clone: Clone, new_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    pid = tmp_path / "hidden"
    clone.control("tune", f"600 1 hide {pid}")
    clone.commit()
    worker = new_worker()
    run = clone.start("run")
    try:
        run.wait_for("step 1", 120)
        hidden = psutil.Process(int(pid.read_text()))
        tree = [process for process in worker.tree() if process.pid != worker.background.process.pid]
        assert hidden in worker.tree() or hidden.is_running()
        if how == "Ctrl-C":
            run.process.send_signal(signal.SIGINT)
        else:
            state = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
            ask(stack, f"/flow_runs/{run.flow_run_id()}/set_state", state)
        took = wait_until(lambda: gone([hidden]), 30, "the end of the grandchild")
        took += wait_until(lambda: gone([p for p in tree if "guard" in str(_line(p))]), 30, "the guard's end")
        print(f"{how}: the remote tree ended after {took:.1f} s")
        assert took < 10
        assert run.process.wait(60) == 130, run.text()
        wait_until(lambda: gone(tree), 30, "the end of the flow run's process")
    finally:
        run.end()
    assert runs_of_pool(stack)[-1]["state_type"] == "CANCELLED"
    assert list((worker.home / "checkouts").iterdir()) == []
    assert [run.info.status for run in clone.runs()["tune"]] == ["KILLED"]
    assert [key for key in clone.objects() if "checkpoints/" in key], "the next run goes on from there"


def test_ctrl_c_after_a_killed_run_of_the_same_clone(
    clone: Clone, new_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """The killed run counted as somebody else who waits, so the stage trained on for nobody."""
    pid = tmp_path / "hidden"
    clone.control("tune", f"600 1 hide {pid}")
    clone.commit()
    new_worker()
    killed = clone.start("run")
    try:
        killed.wait_for("step 1", 120)
        killed.process.kill()
        killed.process.wait(30)
    finally:
        killed.end()
    hidden = psutil.Process(int(pid.read_text()))
    assert hidden.is_running(), "its worker goes on"
    again = clone.start("run")
    try:
        again.wait_for("which is in work pool 'gpu' already", 120)
        again.wait_for("step 1", 60)
        again.process.send_signal(signal.SIGINT)
        assert again.process.wait(60) == 130, again.text()
        assert "somebody else waits" not in again.text()
        wait_until(lambda: gone([hidden]), 30, "the end of the stage")
    finally:
        again.end()


def test_sigterm_ends_a_worker_that_a_script_started(clone: Clone, new_worker: Callable[..., Worker]) -> None:
    """Prefect's worker sends itself SIGINT then, which a script's `&` has ignored: it went on for ever."""
    clone.control("tune", "600 1")
    clone.commit()
    worker = new_worker(in_background=True)
    run = clone.start("run")
    try:
        run.wait_for("step 1", 120)
        tree = worker.tree()
        worker.background.process.terminate()
        wait_until(lambda: gone(tree), 60, "the end of the worker and its stage")
        run.wait_for("another worker is asked", 90)  # and its run is marked as crashed
        run.process.send_signal(signal.SIGINT)
        assert run.process.wait(60) == 130, run.text()
    finally:
        run.end()


def _line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
