"""What a killed DVC had locked does not block the next stage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from erv.pipeline.dead_holders import release_dead_holders


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / ".dvc/tmp").mkdir(exist_ok=True)
    return tmp_path


@pytest.fixture
def zombie() -> Iterator[int]:
    """A process that has ended, and whose parent has not asked for its exit code."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    yield pid
    os.waitpid(pid, 0)


def holder(pid: int, command: str = "dvc/__main__.py repro a") -> dict[str, object]:
    return {"pid": pid, "cmd": command}


def lock_of(workspace: Path) -> dict[str, object]:
    return json.loads((workspace / ".dvc/tmp/rwlock").read_text())


def test_zombies_and_reused_ids_hold_nothing_and_the_living_do(workspace: Path, zombie: int) -> None:
    script = "import sys, time; time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script, "repro", "a"]) as alive:
        try:
            mine, others = holder(alive.pid), holder(os.getpid())  # our id, but not our command
            content = {
                "write": {"/w/a": holder(zombie), "/w/b": mine, "/w/c": others},
                "read": {"/w/d": [holder(zombie), mine], "/w/e": [holder(zombie)]},
            }
            (workspace / ".dvc/tmp/rwlock").write_text(json.dumps(content))
            assert release_dead_holders(workspace) == sorted({zombie, os.getpid()})
            assert lock_of(workspace) == {"write": {"/w/b": mine}, "read": {"/w/d": [mine]}}
            assert release_dead_holders(workspace) == []
        finally:
            alive.kill()


@pytest.mark.parametrize("content", ["", '{"write": {"/w/a": {"pid"', "[]", '{"write": {"/w/a": 3}}'])
def test_half_a_file_is_deleted(workspace: Path, content: str) -> None:
    (workspace / ".dvc/tmp/rwlock").write_text(content)
    assert release_dead_holders(workspace) == []
    assert not (workspace / ".dvc/tmp/rwlock").exists()


def test_dvc_goes_on_where_a_zombie_held_the_output(workspace: Path, zombie: int) -> None:
    (workspace / "dvc.yaml").write_text("stages: {a: {cmd: echo 1 > out, outs: [out]}}\n")
    content = {"write": {str(workspace / "out"): holder(zombie)}, "read": {}}
    (workspace / ".dvc/tmp/rwlock").write_text(json.dumps(content))
    command = [sys.executable, "-m", "dvc", "repro", "a"]
    blocked = subprocess.run(command, cwd=workspace, capture_output=True, text=True, check=False)
    assert "is busy" in blocked.stderr, "DVC has learned to look at zombies: delete erv.pipeline.dead_holders"
    release_dead_holders(workspace)
    subprocess.run(command, cwd=workspace, capture_output=True, check=True)
    assert (workspace / "out").read_text() == "1\n"
