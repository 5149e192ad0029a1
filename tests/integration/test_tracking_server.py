"""Runs of stages against a real MLflow server: live, in an outage, after a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from erv.environment import Environment
from erv.errors import RegistryError
from erv.lineage.stages import StageTrees
from erv.pipeline import Acceptance, AcceptedFile, add_accepted
from erv.register.registration import close_killed
from erv.tracking import records
from erv.tracking.delivery import deliver_spool
from erv.tracking.durations import Took, last_times
from erv.tracking.lock_entries import ENTRY_TAG, client_of, entry_hash, find_runs
from erv.tracking.opening import open_run
from erv.tracking.origin import who
from erv.tracking.outbox import _PATIENCE_SECONDS
from erv.tracking.rest import DeletedExperiment, Rest
from tests.integration.proxy import Proxy
from tests.support.small_disk import on_small_disk

pytestmark = pytest.mark.integration

STAGE = """
import sys, time
from pathlib import Path
from erv.errors import DataError
from erv.stage import Option, run_stage

def main(arguments, settings, run):
    Path("started").write_text(str(run.run_id))
    run.log_metrics({"loss": 0.5}, step=1)
    if arguments.variant == "bad":
        raise DataError("clip 00001 is unreadable; put it right")
    if arguments.variant == "bug":
        raise ValueError("ours")
    if arguments.variant == "slow":
        time.sleep(60)
    if arguments.variant == "files":
        run.log_artifact(Path("large"))

run_stage("grpo", main, Option("variant"))
"""


@pytest.fixture
def client(stack: Environment):
    return client_of(stack)


def start_stage(workspace: Path, variant: str, **variables: str) -> subprocess.Popen[str]:
    (workspace / "stage.py").write_text(STAGE)
    (workspace / "started").unlink(missing_ok=True)
    command = [sys.executable, "stage.py", "--variant", variant]
    environment = {**os.environ, **variables}
    # A background job of a shell ignores Ctrl-C, and so would what it starts.
    return subprocess.Popen(
        command,
        cwd=workspace,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def wait_for(path: Path, seconds: float = 60) -> str:
    deadline = time.monotonic() + seconds
    while not (path.is_file() and path.read_text()):
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.05)
    return path.read_text()


def test_everything_a_stage_reports(stack: Environment, client, tmp_path: Path, monkeypatch) -> None:
    parent = open_run(stack, "flow", "flow")
    monkeypatch.setenv("ERV_PARENT_RUN_ID", parent.run_id)
    monkeypatch.setenv("ERV_FLOW_RUN_ID", "flow-1")
    run = open_run(stack, "grpo", "grpo@erv", {"note": f"key {stack.s3_secret_key}"})
    data = tmp_path / "mafw"
    data.mkdir()
    (data / "shard").write_bytes(b"frames")
    page = tmp_path / "page.html"
    page.write_text("first")
    for step in range(1, 4):
        run.log_metrics({"reward/mean": step / 2, "loss": float("nan")}, step=step)
    run.log_params({"grpo": {"beta": 0.02, "rewards": [{"name": "format"}]}, "uri": "http://me:pass@host/x"})
    run.log_dataset("mafw", data, "training")
    run.log_artifact(page, "pages")
    page.write_text("second")
    run.log_text("hello", "notes/hello.txt")
    run.log_table(["step", "said"], [[1, "näh"], [1, None]], "samples/step_00001")
    run.log_table(["step", "said"], [[2, "so"]], "samples/step_00002")
    deadline = time.monotonic() + 20
    while not client.get_run(run.run_id).data.metrics and time.monotonic() < deadline:
        time.sleep(0.2)
    assert client.get_run(run.run_id).info.status == "RUNNING", "metrics are visible while the stage runs"
    run.close("FINISHED")
    parent.close("FINISHED")

    found = client.get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "grpo@erv"
    history = client.get_metric_history(run.run_id, "reward/mean")
    assert [(point.step, point.value) for point in history] == [(1, 0.5), (2, 1.0), (3, 1.5)]
    assert found.data.params == {
        "grpo.beta": "0.02",
        "grpo.rewards.0.name": "format",
        "uri": "http://me:***@host/x",
    }
    tags = found.data.tags
    assert tags["erv.stage"] == "grpo"
    assert tags["mlflow.parentRunId"] == parent.run_id
    assert tags["prefect.flow_run_id"] == "flow-1"
    assert tags["note"] == "key ***"
    (used,) = found.inputs.dataset_inputs
    assert (used.dataset.name, used.tags[0].value) == ("mafw", "training")
    assert used.dataset.digest.endswith(".dir")
    copy = client.download_artifacts(run.run_id, "pages/page.html", str(tmp_path))
    assert Path(copy).read_text() == "first", "an artifact is stored as it was when it was logged"
    assert (
        Path(client.download_artifacts(run.run_id, "notes/hello.txt", str(tmp_path))).read_text() == "hello"
    )
    copy = client.download_artifacts(run.run_id, "samples/step_00001.json", str(tmp_path))
    first = json.loads(Path(copy).read_text())
    assert first == {"columns": ["step", "said"], "data": [[1, "näh"], [1, None]]}
    tables = json.loads(tags["mlflow.loggedArtifacts"])  # what the web page shows as tables
    assert tables == [{"path": f"samples/step_0000{step}.json", "type": "table"} for step in (1, 2)]
    record = records.read(stack, "grpo@erv")
    assert record is not None
    assert record["run_id"] == run.run_id
    assert list((stack.state / "spool").glob("*/*")) == []


def test_how_long_stages_took_and_the_run_of_a_result_that_was_kept(
    stack: Environment, client, tmp_path: Path
) -> None:
    run = open_run(stack, "grpo", "grpo@kept")
    run.log_params({"runtime": {"device": "cpu"}})
    time.sleep(1.1)
    run.close("FINISHED")
    failed = open_run(stack, "grpo", "grpo@kept")
    failed.close("FAILED")
    elsewhere = open_run(stack, "grpo", "grpo@kept", {"erv.host": "gpu-box"})  # newer, on another machine
    elsewhere.close("FINISHED")
    found = last_times(stack, ["grpo@kept", "grpo@never"], "cpu")
    assert found.keys() == {"grpo@kept"}
    assert 1.0 < found["grpo@kept"].seconds < 120.0, "of the run that finished, on this machine"
    assert found["grpo@kept"].elsewhere == ""
    newest = last_times(stack, ["grpo@kept"], "cuda")["grpo@kept"]
    assert newest == Took(newest.seconds, "on gpu-box")
    client.set_tag(run.run_id, "mlflow.runName", "grpo@other")
    other = last_times(stack, ["grpo@other"], "cuda")["grpo@other"]
    assert other.elsewhere == "with runtime.device cpu"
    client.set_tag(run.run_id, "mlflow.runName", "grpo@kept")

    old, new = ({"cmd": "grpo", "deps": [{"path": "code.py", "md5": md5}]} for md5 in ("a" * 32, "b" * 32))
    client.set_tag(run.run_id, ENTRY_TAG, entry_hash(old))
    record = Acceptance(
        "grpo@kept",
        entry_hash(old),
        entry_hash(new),
        "2026-11-29T12:00:00Z",
        "Ada",
        "a wording",
        (AcceptedFile("code.py", "code", "a" * 32, "b" * 32),),
    )
    assert find_runs(stack, new) == []
    assert [item.info.run_id for item in find_runs(stack, new, [record])] == [run.run_id]
    add_accepted([record], tmp_path)
    node = StageTrees(stack).node({"grpo@kept": new}, "grpo@kept", tmp_path, set())
    assert node.facts == [
        "kept on 2026-11-29T12:00:00Z by Ada: a wording; code.py (code)",
        f"MLflow run {run.run_id}",
        f"started by {who(stack.workspace)}",
    ]


def _text_of(spool: Path) -> str:
    return "".join(path.read_text() for path in spool.glob("*/events.jsonl"))


def test_outage_in_mid_run_loses_nothing(stack: Environment, client, tmp_path: Path) -> None:
    """MLflow is stopped while a run is open, and started again: all points arrive, with their own times."""
    import psutil

    from erv.stack import status

    server = psutil.Process(next(s.pid for s in status(stack.workspace) if s.name == "mlflow"))
    run = open_run(stack, "sft", "sft")
    run.log_metrics({"loss": 1.0}, step=1)
    deadline = time.monotonic() + 20
    while not client.get_run(run.run_id).data.metrics and time.monotonic() < deadline:
        time.sleep(0.2)

    from erv.stack import up
    from erv.stack.control import _records, _stop_service
    from erv.stack.processes import load

    assert load(_records(stack), "mlflow").pid == server.pid
    spooled = stack.state / "spool"
    _stop_service(stack, "mlflow")
    try:
        during = time.monotonic()
        run.log_metrics({"loss": 0.5}, step=2)
        (tmp_path / "curve.txt").write_text("made in the outage")
        run.log_artifact(tmp_path / "curve.txt")
        assert time.monotonic() - during < 0.5, "an outage does not hold the stage up"
        deadline = time.monotonic() + 20
        while "curve.txt" not in _text_of(spooled) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert "curve.txt" in _text_of(spooled), "what waits is on the disk, should the stage be killed now"
    finally:
        again = up(stack.workspace)
    assert again.mlflow_uri == stack.mlflow_uri
    run.log_metrics({"loss": 0.25}, step=3)
    run.close("FINISHED")
    history = client.get_metric_history(run.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 1.0), (2, 0.5), (3, 0.25)]
    assert history[1].timestamp < history[2].timestamp - 2000, "the point has the time at which it was logged"
    assert [item.path for item in client.list_artifacts(run.run_id)] == ["curve.txt"]
    assert client.get_run(run.run_id).info.status == "FINISHED"
    assert list(spooled.glob("*/*")) == []


@pytest.mark.slow
def test_stage_that_never_reached_mlflow_is_delivered_later(
    stack: Environment, client, tmp_path: Path
) -> None:
    workspace = make_workspace(stack, tmp_path)
    lose_mlflow(workspace, stack)
    process = start_stage(workspace, "bad")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    lines = errors.splitlines()
    assert lines[-1] == "error: grpo@bad: clip 00001 is unreadable; put it right"
    assert sum("MLflow can't be reached" in line for line in lines) == 2, errors
    assert "Traceback" not in errors
    here = replace(stack, workspace=workspace)
    assert deliver_spool(here) == 1
    record = records.read(here, "grpo@bad")
    assert record is not None
    found = client.get_run(record["run_id"])
    assert found.info.status == "FAILED"
    assert found.info.start_time == record["started"]
    assert found.data.metrics["loss"] == 0.5
    assert found.data.params["grpo.beta"] == "0.02"
    assert deliver_spool(here) == 0


@pytest.mark.parametrize(
    ("number", "code", "state"),
    [
        pytest.param(signal.SIGTERM, 143, "KILLED", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, "KILLED", marks=pytest.mark.slow),
        (signal.SIGKILL, -9, "KILLED"),
    ],
)
def test_stopped_stage(
    stack: Environment, client, tmp_path: Path, number: int, code: int, state: str
) -> None:
    workspace = make_workspace(stack, tmp_path)
    process = start_stage(workspace, "slow")
    run_id = wait_for(workspace / "started")
    time.sleep(1.5)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    here = replace(stack, workspace=workspace)
    if number == signal.SIGKILL:
        assert client.get_run(run_id).info.status == "RUNNING"
        assert deliver_spool(here) == 1
    else:
        assert errors.splitlines()[-1].startswith("error: grpo@slow: stopped before it finished")
        assert "Traceback" not in errors
    found = client.get_run(run_id)
    assert found.info.status == state
    assert found.data.metrics["loss"] == 0.5
    assert deliver_spool(here) == 0


@pytest.mark.slow
def test_the_end_waits_as_long_as_mlflow_receives(
    stack: Environment, client, caplog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """12,000 points through a slow line take longer than the end of a stage waits for an answer."""
    caplog.set_level("INFO")
    monkeypatch.setitem(_PATIENCE_SECONDS, "FINISHED", 1.0)
    monkeypatch.setattr("erv.tracking.outbox._SILENT_CLOSE_SECONDS", 1.0)
    proxy = Proxy(str(stack.mlflow_uri))
    run = open_run(replace(stack, mlflow_uri=proxy.endpoint), "grpo", "grpo@many")
    proxy.delay = 0.4
    for step in range(1200):
        run.log_metrics({f"m{name}": float(step) for name in range(10)}, step=step)
    run.close("FINISHED")
    proxy.close()
    assert client.get_run(run.run_id).info.status == "FINISHED"
    assert sum(len(client.get_metric_history(run.run_id, f"m{name}")) for name in range(10)) == 12_000
    assert any("delivering the last" in message for message in caplog.messages)
    assert not any("kept in .erv/spool" in message for message in caplog.messages)


def test_what_a_slow_mlflow_does_not_take_in_time_is_kept_and_said_so(
    stack: Environment, client, caplog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_PATIENCE_SECONDS, "FINISHED", 1.0)
    proxy = Proxy(str(stack.mlflow_uri))
    run = open_run(replace(stack, mlflow_uri=proxy.endpoint), "grpo", "grpo@late")
    proxy.delay = 8.0
    run.log_metrics({"a": 1.0})
    run.close("FINISHED")
    proxy.close()
    assert "MLflow did not receive everything within " in caplog.text
    assert "events of grpo@late are kept in .erv/spool" in caplog.text
    assert "can't be reached" not in caplog.text
    (events,) = (stack.state / "spool").glob(f"{run._header.key}/events.jsonl")
    assert [json.loads(line)["kind"] for line in events.read_text().splitlines()][-1] == "end"
    shutil.rmtree(events.parent)


def test_a_deleted_experiment_is_named_with_what_restores_it_and_nothing_is_lost(
    stack: Environment, client, caplog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_PATIENCE_SECONDS, "FINISHED", 0.5)
    environment = replace(stack, mlflow_experiment="thrown away")
    number = client.create_experiment("thrown away")
    client.delete_experiment(number)
    sentence = (
        "the MLflow experiment 'thrown away' is deleted; restore it with"
        f" `MLFLOW_TRACKING_URI={stack.mlflow_uri} mlflow experiments restore --experiment-id {number}`,"
        " or set ERV_MLFLOW_EXPERIMENT to another name"
    )
    run = open_run(environment, "grpo", "grpo@thrown")
    run.log_metrics({"a": 1.0})
    run.close("FINISHED")
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [
        f"{sentence}; continuing and buffering what is logged",
        f"{sentence}; 2 events of grpo@thrown are kept in .erv/spool for the next `erv stack up`",
    ]
    with pytest.raises(DeletedExperiment) as caught:
        Rest(environment).experiment_id("thrown away")
    assert str(caught.value) == sentence
    with pytest.raises(RegistryError) as refused:
        close_killed(client, environment, "emotion")
    assert str(refused.value) == sentence
    secret = replace(environment, mlflow_uri=str(stack.mlflow_uri).replace("://", "://me:hidden@"))
    with pytest.raises(DeletedExperiment, match=r"TRACKING_URI=http://me:\*\*\*@127") as caught:
        Rest(secret).experiment_id("thrown away")
    assert "hidden" not in str(caught.value)
    with pytest.raises(RegistryError, match=r"TRACKING_URI=http://me:\*\*\*@127") as refused:
        close_killed(client, secret, "emotion")
    assert "hidden" not in str(refused.value)
    command = [sys.executable, "-m", "mlflow", "experiments", "restore", "--experiment-id", number]
    subprocess.run(command, env={**os.environ, "MLFLOW_TRACKING_URI": str(stack.mlflow_uri)}, check=True)
    (folder,) = (stack.state / "spool").glob(run._header.key)
    header = json.loads((folder / "run.json").read_text()) | {"created": 0.0}  # as if this process had ended
    (folder / "run.json").write_text(json.dumps(header))
    deliver_spool(environment)
    (found,) = client.search_runs([number])
    assert (found.info.run_name, found.info.status, found.data.metrics) == (
        "grpo@thrown",
        "FINISHED",
        {"a": 1.0},
    )


@pytest.mark.slow
def test_a_full_spool_stops_no_stage(stack: Environment, client, tmp_path: Path) -> None:
    workspace = make_workspace(stack, tmp_path)
    (workspace / "stage.py").write_text(STAGE)
    (workspace / "large").write_bytes(os.urandom(300_000))
    spool = workspace / ".erv/spool"
    done = on_small_disk(spool, 64, "stage.py", "--variant", "files", cwd=workspace)
    assert done.returncode == 0, done.stderr
    assert "No space left on device; the stage goes on" in done.stderr
    assert "Traceback" not in done.stderr
    found = client.get_run((workspace / "started").read_text())
    assert found.info.status == "FINISHED"
    assert found.data.metrics["loss"] == 0.5
    assert [(item.path, item.file_size) for item in client.list_artifacts(found.info.run_id)] == [
        ("large", 300_000)
    ]
    lose_mlflow(workspace, stack)
    down = on_small_disk(spool, 64, "stage.py", "--variant", "files", cwd=workspace)
    assert down.returncode == 0, down.stderr
    assert "Traceback" not in down.stderr


def test_bug_of_ours_fails_the_run_with_a_traceback(stack: Environment, client, tmp_path: Path) -> None:
    workspace = make_workspace(stack, tmp_path)
    process = start_stage(workspace, "bug")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "ValueError: ours" in errors
    assert client.get_run((workspace / "started").read_text()).info.status == "FAILED"


def test_refused_event_does_not_block_the_rest(stack: Environment, client, caplog) -> None:
    run = open_run(stack, "sft", "sft")
    run.log_params({"same": 1})
    run.log_params({"same": 2})
    run.log_metrics({"after": 1.0})
    run.close("FINISHED")
    found = client.get_run(run.run_id)
    assert found.data.params == {"same": "1"}
    assert found.data.metrics == {"after": 1.0}
    assert found.info.status == "FINISHED"
    assert any("MLflow refuses params" in message for message in caplog.messages)


def make_workspace(stack: Environment, folder: Path) -> Path:
    """A second workspace that uses the same servers."""
    (folder / ".erv").mkdir()
    (folder / ".erv" / "stack.env").write_text(stack.stack_file.read_text())
    (folder / "params.yaml").write_text((stack.workspace / "params.yaml").read_text())
    return folder


def lose_mlflow(workspace: Path, stack: Environment) -> None:
    """From now on, nothing answers where the workspace's MLflow was."""
    file = workspace / ".erv/stack.env"
    file.write_text(file.read_text().replace(str(stack.mlflow_uri), "http://127.0.0.1:9"))


def test_spool_holds_no_secret(stack: Environment, tmp_path: Path) -> None:
    nowhere = replace(stack, workspace=tmp_path, mlflow_uri="http://127.0.0.1:9")
    run = open_run(nowhere, "sft", "sft")
    run.log_params({"key": stack.s3_secret_key})
    run.log_text(f"secret {stack.s3_secret_key}", "x.txt")
    run.set_tags({"t": str(stack.s3_secret_key)})
    run.close("KILLED")
    (events,) = (tmp_path / ".erv" / "spool").glob("*/events.jsonl")
    kinds = [json.loads(line)["kind"] for line in events.read_text().splitlines()]
    assert kinds == ["params", "text", "tags", "end"]
    assert str(stack.s3_secret_key) not in events.read_text()
