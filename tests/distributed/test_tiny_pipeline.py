"""The real pipeline, tiny: grpo on a worker that is killed in mid-training, and finished by another."""

from __future__ import annotations

import platform
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from erv.environment import load_environment
from tests.distributed.topology import Worker, gone
from tests.e2e.workspace import Listener, Workspace, clone, kill_tree

pytestmark = [pytest.mark.distributed, pytest.mark.e2e, pytest.mark.timeout(3000)]


@pytest.fixture
def workspace(tmp_path: Path):
    foreign = Listener()
    made = clone(tmp_path, foreign)
    try:
        made.run("erv", "stack", "up")
        made.run("erv", "sample-data", "--size", "tiny", "--upload")
        made.run("erv", "data", "pin")
        made.set_params(
            {
                "machine": {"placement": {"grpo@erv": "gpu", "sft": "gpu"}, "grpo": {"save_steps": 10}},
                # Half a minute where nothing else runs, so that it isn't over before it is killed.
                "grpo": {"max_steps": 160, "collapse_patience": None},
            }
        )
        made.run("git", "add", "-A")
        made.run("git", "commit", "-q", "-m", "pinned and placed")
        yield made
    finally:
        made.run("erv", "stack", "down", check=False)
        foreign.close()


def test_grpo_goes_on_elsewhere(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> None:
    stack = load_environment(workspace.path)
    workers = [Worker(tmp_path_factory.mktemp("worker"), stack, DVC_NO_ANALYTICS="1") for _ in range(2)]
    run = workspace.start("erv", "run", "grpo@erv")

    def text() -> str:
        return Path(workspace.log[-1]).read_text()

    try:
        wait_for(text, r"\[grpo@erv\] kept checkpoint-\d+ in the object store", run, 2000)
        busy, idle = workers if workers[0].flow_processes() else reversed(workers)
        killed = busy.signal(signal.SIGKILL)
        wait_for(text, r"\[grpo@erv\] WARNING: attempt 1 is lost", run, 90)
        wait_for(text, rf"\[grpo@erv\] runs on {platform.node()}:{re.escape(str(idle.home))}", run, 90)
        assert run.wait(900) == 0, text()[-6000:]
        assert gone(killed)
    finally:
        kill_tree(run)
        for worker in workers:
            worker.end()
    assert "goes on from a checkpoint of an earlier attempt, step" in text()
    assert re.search(r"^grpo@erv +ran", text(), re.MULTILINE)
    assert (workspace.path / "models/policy/erv/config.json").is_file()
    assert "up to date" in workspace.run("dvc", "status", "grpo@erv", "sft").stdout
    again = workspace.run("erv", "run", "grpo@erv").stdout
    assert re.search(r"^grpo@erv +unchanged", again, re.MULTILINE)


def wait_for(text: Callable[[], str], pattern: str, run: subprocess.Popen[str], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not re.search(pattern, text()):
        assert run.poll() is None, text()[-6000:]
        assert time.monotonic() < deadline, f"waited in vain for {pattern}:\n{text()[-4000:]}"
        time.sleep(0.5)
