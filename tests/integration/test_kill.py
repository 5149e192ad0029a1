"""A flow that is stopped, in whatever way, leaves nothing running and nothing that writes later."""

from __future__ import annotations

import signal
import time

import pytest

from erv.environment import Environment
from erv.tracking.origin import who
from tests.integration.prefect_api import ask
from tests.integration.scratch import Background, Scratch, seen_free, wait_until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def scratch(stack: Environment, tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    return Scratch(tmp_path_factory.mktemp("kill"), stack)


@pytest.fixture
def running(scratch: Scratch, request: pytest.FixtureRequest):
    """A flow with two independent stages running, for a different time in each test."""
    scratch.control("make", f"{60 + len(request.node.name)}")
    background = scratch.start("run", "make")
    try:
        background.wait_for("[make@a] INFO begins")
        background.wait_for("[make@b] INFO begins")
        yield background
    finally:
        background.end()
        for process in scratch.processes():
            process.kill()


def nothing_is_left(scratch: Scratch, seconds: float = 15.0) -> None:
    wait_until(lambda: not scratch.processes(), seconds)
    time.sleep(0.5)
    assert not list(scratch.folder.glob("made/*.txt"))


def state_of(scratch: Scratch, flow_run_id: str) -> str:
    return ask(scratch.environment, f"/flow_runs/{flow_run_id}")["state"]["type"]


def task_states(scratch: Scratch, flow_run_id: str) -> set[str]:
    body = {"flow_runs": {"id": {"any_": [flow_run_id]}}}
    return {run["state"]["type"] for run in ask(scratch.environment, "/task_runs/filter", body)}


@pytest.mark.slow
def test_kill_minus_nine(scratch: Scratch, running: Background) -> None:
    flow_run_id = running.flow_run_id()
    running.process.kill()
    nothing_is_left(scratch)
    # The next flow closes what the killed one could not, and is not locked out.
    scratch.control("make", "0")
    assert "2 stages: 2 ran" in scratch.erv("run", "make").stdout
    runs = scratch.runs()
    assert [run.info.status for run in runs["train"][:2]] == ["FINISHED", "KILLED"]
    assert runs["make@a"][1].info.status == "KILLED"
    assert state_of(scratch, flow_run_id) == "CRASHED"
    assert task_states(scratch, flow_run_id) == {"CRASHED"}


@pytest.mark.parametrize(
    ("signum", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, -signal.SIGTERM, marks=pytest.mark.slow)],
)
def test_signals(scratch: Scratch, running: Background, signum: int, code: int) -> None:
    flow_run_id = running.flow_run_id()
    running.process.send_signal(signum)
    assert running.process.wait(30) == code
    nothing_is_left(scratch)
    runs = scratch.runs()
    assert runs["train"][0].info.status == runs["make@a"][0].info.status == "KILLED"
    if signum == signal.SIGINT:  # a crash is told to the whole team
        assert state_of(scratch, flow_run_id) == "CANCELLED"
        assert "error: interrupted; finished work is kept" in running.text()
        assert "Traceback" not in running.text()
        tags = ask(scratch.environment, f"/flow_runs/{flow_run_id}")["tags"]
        assert f"erv-run-by:{who(scratch.folder)} in {scratch.folder}" in tags


@pytest.mark.parametrize("signum", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_the_workspace_is_held_until_the_last_stage_has_ended(scratch: Scratch, signum: int) -> None:
    def stages() -> list[str]:
        lines = [" ".join(process.cmdline()) for process in scratch.processes()]
        return [line for line in lines if "work.py" in line]

    scratch.control("make", f"{40 + signum} slow")
    running = scratch.start("run", "make")
    try:
        running.wait_for("[make@a] INFO begins")
        running.wait_for("[make@b] INFO begins")
        running.process.send_signal(signum)
        time.sleep(1)
        assert stages(), "they take four seconds to end"
        running.process.send_signal(signal.SIGINT)  # somebody who is impatient
        lock, note = (scratch.folder / ".erv" / name for name in ("pipeline.lock", "flow_run"))
        assert not seen_free(lock, note, stages)
        running.process.wait(30)
        nothing_is_left(scratch)
    finally:
        running.end()
        for process in scratch.processes():
            process.kill()


@pytest.mark.slow
def test_a_cancellation_on_the_server(scratch: Scratch, running: Background) -> None:
    flow_run_id = running.flow_run_id()
    state = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    ask(scratch.environment, f"/flow_runs/{flow_run_id}/set_state", state)
    assert running.process.wait(30) == 130
    nothing_is_left(scratch)
    assert state_of(scratch, flow_run_id) == "CANCELLED"


@pytest.mark.slow
def test_a_second_pipeline_is_refused(scratch: Scratch, running: Background) -> None:
    result = scratch.erv("run", "make", check=False)
    assert result.returncode == 1
    assert f"error: another pipeline runs in {scratch.folder}" in result.stderr
    assert running.process.poll() is None
