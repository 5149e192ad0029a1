"""The local stack as people use it: twice, half broken, with busy ports, beside other settings of theirs."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from erv.environment import Environment
from erv.errors import StackError
from erv.stack import clean, control, down, ports, processes, status, up
from erv.storage.store import open_store

pytestmark = pytest.mark.integration

ERV = str(Path(sys.executable).with_name("erv"))
DVC = str(Path(sys.executable).with_name("dvc"))
FOREIGN = {
    "AWS_PROFILE": "nonexistent",
    "AWS_DEFAULT_PROFILE": "nonexistent",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_SECRET_ACCESS_KEY": "of-the-user",
    "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
    "PREFECT_API_URL": "http://127.0.0.1:9/api",
    "PREFECT_PROFILE": "nonexistent",
}


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Path]:
    """A workspace; its servers are stopped whatever the test does."""
    (tmp_path / ".dvc").mkdir()
    yield tmp_path
    clean(tmp_path)


def marked(workspace: Path) -> list[psutil.Process]:
    """All processes that were started for a workspace."""
    found = []
    for process in psutil.process_iter():
        try:
            if processes.MARK in process.environ() and str(workspace) in process.cwd():
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def pids(workspace: Path) -> dict[str, int | None]:
    return {service.name: service.pid for service in status(workspace)}


def run(*command: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=200)


def test_up_again_changes_nothing(stack: Environment) -> None:
    before = pids(stack.workspace)
    written = stack.stack_file.stat().st_mtime_ns
    assert up(stack.workspace) == stack
    assert pids(stack.workspace) == before
    assert stack.stack_file.stat().st_mtime_ns == written
    assert {service.state for service in status(stack.workspace)} == {"running"}


def test_keys_are_private_and_servers_listen_on_this_machine_only(stack: Environment) -> None:
    private = [
        stack.stack_file,
        stack.workspace / ".dvc" / "config.local",
        stack.stack / "s3" / "s3.json",
        stack.stack / "aws" / "credentials",
    ]
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    listening = {
        connection.laddr.ip
        for process in marked(stack.workspace)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}
    logs = "".join(path.read_text() for path in (stack.stack / "logs").glob("*.log"))
    assert str(stack.s3_secret_key) not in logs


def test_bare_dvc_reaches_our_remote_in_a_foreign_shell(stack: Environment, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    assert run("git", "init", "-q", cwd=repository).returncode == 0
    shutil.copytree(stack.workspace / ".dvc", repository / ".dvc")
    (repository / "data.txt").write_text(str(tmp_path))
    assert run(DVC, "add", "-q", "data.txt", cwd=repository, **FOREIGN).returncode == 0
    pushed = run(DVC, "push", cwd=repository, **FOREIGN)
    assert "1 file pushed" in pushed.stdout, pushed.stderr
    elsewhere = {"AWS_SHARED_CREDENTIALS_FILE": "/nonexistent", **FOREIGN}
    assert "in sync" in run(DVC, "status", "-c", cwd=repository, **elsewhere).stdout
    elsewhere = {"AWS_CONFIG_FILE": "/nonexistent", **FOREIGN}
    assert "in sync" in run(DVC, "status", "-c", cwd=repository, **elsewhere).stdout


def test_lines_for_the_shell(stack: Environment) -> None:
    script = 'eval "$(erv stack env)"; echo "${AWS_PROFILE-unset} $MLFLOW_TRACKING_URI $AWS_ACCESS_KEY_ID"'
    path = os.pathsep.join([str(Path(ERV).parent), os.environ["PATH"]])
    said = run("bash", "-c", script, cwd=stack.workspace, **{**FOREIGN, "PATH": path}).stdout.split()
    assert said == ["unset", stack.mlflow_uri, stack.s3_access_key]


@pytest.mark.slow
def test_servers_outlive_their_shell_and_keep_what_they_stored(workspace: Path) -> None:
    started = subprocess.Popen(
        [ERV, "stack", "up", "s3"], cwd=workspace, env={**os.environ, **FOREIGN}, start_new_session=True
    )
    assert started.wait(60) == 0
    with pytest.raises(ProcessLookupError):
        os.killpg(started.pid, 15)  # nobody is left in the session of the shell
    environment = up(workspace, names=("s3",))
    open_store(environment).write(b"kept", "s3://erv-raw/kept")
    assert down(workspace) == ["s3"]
    assert marked(workspace) == []
    assert [service.state for service in status(workspace)] == ["stopped"] * 3
    assert down(workspace) == []
    again = up(workspace, names=("s3",))
    assert again == environment, "ports and keys are the same after a restart"
    assert open_store(again).read("s3://erv-raw/kept") == b"kept"


@pytest.mark.slow
def test_busy_port_is_left_to_its_owner(workspace: Path) -> None:
    environment = up(workspace, names=("s3",))
    open_store(environment).write(b"kept", "s3://erv-raw/kept")
    down(workspace)
    port = int(str(environment.s3_endpoint).rpartition(":")[2])
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        moved = up(workspace, names=("s3",))
    assert moved.s3_endpoint != environment.s3_endpoint
    assert open_store(moved).read("s3://erv-raw/kept") == b"kept"
    assert str(moved.s3_endpoint) in (workspace / ".dvc" / "config.local").read_text()


@pytest.mark.slow
def test_killed_server_is_started_again(workspace: Path) -> None:
    environment = up(workspace, names=("s3",))
    psutil.Process(pids(workspace)["s3"]).kill()
    deadline = time.monotonic() + 5
    while pids(workspace)["s3"] is not None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert status(workspace)[0].state == "stopped"
    # The last threads of a killed process hold its ports for a moment, on a busy machine for longer.
    port = int(str(environment.s3_endpoint).rpartition(":")[2])
    assert ports.wait_until_free([port], 10.0) == []
    with socket.create_server(("127.0.0.1", port)) as held:
        threading.Timer(1.0, held.close).start()
        assert up(workspace, names=("s3",)) == environment
    assert len(marked(workspace)) == 1


@pytest.mark.slow
def test_process_with_a_recycled_id_is_never_touched(workspace: Path) -> None:
    environment = up(workspace, names=("s3",))
    records = control._records(environment)
    down(workspace)
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        created = psutil.Process(bystander.pid).create_time()
        for age in (0.0, 1000.0):  # even with the same start time: it does not carry our mark
            processes.Record("s3", bystander.pid, created - age, "s3-mark", "f").save(records)
            assert down(workspace) == []
            assert bystander.poll() is None
        processes.Record("s3", bystander.pid, created, "s3-mark", "f").save(records)
        up(workspace, names=("s3",))
        assert bystander.poll() is None
        assert pids(workspace)["s3"] != bystander.pid
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.slow
def test_two_starts_at_a_time_make_one_stack(workspace: Path) -> None:
    command = [ERV, "stack", "up", "s3"]
    both = [subprocess.Popen(command, cwd=workspace, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate(timeout=100)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert sum("waiting for another `erv stack` that is running" in text for text in errors) == 1
    assert len(marked(workspace)) == 1


@pytest.mark.slow
def test_half_failed_start_stops_what_it_started(workspace: Path) -> None:
    folder = workspace / ".erv" / "stack" / "mlflow"
    folder.mkdir(parents=True)
    (folder / "mlflow.db").write_text("not a database, but long enough to be read as one" * 50)
    with pytest.raises(StackError, match=r"mlflow exited while starting: .*file is not a database") as caught:
        up(workspace, names=("s3", "mlflow"))
    assert "mlflow.log" in str(caught.value)
    assert marked(workspace) == []
    assert not list((workspace / ".erv" / "stack" / "pids").glob("*.json"))


def test_server_that_never_gets_ready_is_given_up(workspace: Path) -> None:
    with pytest.raises(StackError, match=r"s3 was not ready after 0 s"):
        up(workspace, names=("s3",), patience=0.2)
    assert marked(workspace) == []


def test_damaged_record_counts_as_stopped(workspace: Path) -> None:
    folder = workspace / ".erv" / "stack" / "pids"
    folder.mkdir(parents=True)
    (folder / "s3.json").write_text(json.dumps({"pid": "?"}))
    assert {service.state for service in status(workspace)} == {"stopped"}
    assert down(workspace) == []
