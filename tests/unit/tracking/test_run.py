"""Tracking without a server: names, hashes, the frame of a stage, explained storage errors."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from filelock import FileLock

from erv.environment import Environment
from erv.errors import DataError, StorageError
from erv.files import content_digest
from erv.settings import Settings, load_settings
from erv.storage.store import explain, open_store, split_uri
from erv.tracking.delivery import Delivery, Event, _group, deliver_spool, waiting, write_header
from erv.tracking.header import RunHeader
from erv.tracking.names import entry_name, flatten
from erv.tracking.opening import open_run
from erv.tracking.outbox import Outbox
from erv.tracking.run import StageRun

STAGE = """
import sys
from pathlib import Path
from erv.stage import Option, run_stage

def main(arguments, settings, run):
    run.log_metrics({"a": 1.0}); run.log_params({"b": 2}); run.log_dataset("c", Path("nowhere"), "training")
    print(arguments.dataset, arguments.shards, settings.seed, run.run_id, run.active)

if __name__ == "__main__":
    run_stage("extract", main, Option("dataset"), Option("shards", Path))
"""


def test_nested_parameters_get_dotted_names() -> None:
    assert flatten({"a": {"b": [1, {"c": 2}]}, "d": None}) == {"a.b.0": 1, "a.b.1.c": 2, "d": None}


def test_names_that_mlflow_takes() -> None:
    assert entry_name("variants.erv/reward mean:1-2") == "variants.erv/reward mean:1-2"
    assert entry_name("a@b(c)") == "a_b_c_"


def test_metrics_travel_together_in_order() -> None:
    events = [{"kind": kind} for kind in ("metrics", "metrics", "params", "metrics")]
    assert [len(_group(events, start)) for start in (0, 2, 3)] == [2, 1, 1]


def test_digest_is_what_dvc_writes(tmp_path: Path) -> None:
    """Hashes of a file and a folder equal those in the `.dvc` files that DVC itself writes."""
    folder = tmp_path / "data"
    for name in ("b/2.bin", "a.txt", "b/10.bin", "ä ö.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode() * 1000)
    (tmp_path / "one.txt").write_text("one\r\n")
    dvc = str(Path(sys.executable).with_name("dvc"))
    subprocess.run([dvc, "init", "-q", "--no-scm"], cwd=tmp_path, check=True, timeout=60)
    subprocess.run([dvc, "add", "-q", "data", "one.txt"], cwd=tmp_path, check=True, timeout=60)
    assert f"md5: {content_digest(folder)}\n" in (tmp_path / "data.dvc").read_text()
    assert f"md5: {content_digest(tmp_path / 'one.txt')}\n" in (tmp_path / "one.txt.dvc").read_text()
    assert len(content_digest(folder)) == 36
    with pytest.raises(DataError, match="nowhere: not found; run the stage that writes it first"):
        content_digest(tmp_path / "nowhere")


def test_stage_runs_without_any_server(root: Path, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text((root / "params.yaml").read_text())
    (tmp_path / "extract.py").write_text(STAGE)
    command = [sys.executable, "extract.py", "--dataset", "mafw", "--shards", "a"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    seed = load_settings(root / "params.yaml").seed
    assert said.stdout == f"mafw a {seed} None False\n"
    assert said.stderr.splitlines() == [
        "INFO no MLflow server is configured, so nothing is tracked; to track, run `erv stack up`"
    ]
    assert not (tmp_path / ".erv").exists()


def test_stage_reports_all_faults_of_the_parameters(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    (tmp_path / "extract.py").write_text(STAGE)
    command = [sys.executable, "extract.py", "--dataset", "mafw", "--shards", "a"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert said.returncode == 2
    assert said.stderr.startswith("error: extract@mafw: ")
    assert (
        said.stderr.count(": missing; ") == sum(f.is_required() for f in Settings.model_fields.values()) - 1
    )
    assert "Traceback" not in said.stderr


def test_stage_insists_on_its_options(tmp_path: Path) -> None:
    (tmp_path / "extract.py").write_text(STAGE)
    command = [sys.executable, "extract.py", "--dataset", "mafw"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert said.returncode == 2
    assert "the following arguments are required: --shards" in said.stderr


def test_run_of_a_living_process_is_not_waiting(tmp_path: Path) -> None:
    import os

    import psutil

    environment = Environment(tmp_path)
    mine = RunHeader("k1", "sft", 0, pid=os.getpid(), created=psutil.Process().create_time())
    write_header(environment.state / "spool" / "k1", mine)
    assert waiting(environment) == 0
    gone = RunHeader("k2", "sft", 0, pid=os.getpid(), created=1.0)
    write_header(environment.state / "spool" / "k2", gone)
    assert waiting(environment) == 1
    assert json.loads((environment.state / "spool" / "k2" / "run.json").read_text())["address"] == "sft"


class Sender(Delivery):
    """A delivery that keeps what it would send and chokes on some values."""

    def __init__(self) -> None:
        self.sent: list[object] = []

    def _send(self, run_id: str, group: Sequence[Event]) -> None:
        if any(event.get("values") == "bad" for event in group):
            raise KeyError("no such field")
        self.sent += [event.get("values") for event in group]


def test_an_event_that_cannot_be_sent_is_left_out_alone(caplog: pytest.LogCaptureFixture) -> None:
    delivery = Sender()
    events = [{"kind": "metrics", "values": value} for value in (1, 2, "bad", 3)] + [{"kind": "end"}]
    assert sum(delivery.deliver("r1", events)) == len(events)
    assert delivery.sent == [1, 2, 3, None]
    assert caplog.messages == ["metrics of run r1 is left out: KeyError: 'no such field'"]


def test_malformed_spool_entries_are_put_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    environment = Environment(tmp_path, mlflow_uri="http://127.0.0.1:9")
    spool = environment.state / "spool"
    for name, header, events in (
        ("half", '{"key": "half', ""),
        ("list", "[1]", ""),
        ("other", json.dumps({"key": "k", "address": "sft", "started": 0, "colour": 1}), ""),
        ("torn", json.dumps({"key": "k", "address": "sft", "started": 0}), '{"kind": "end"}\n{"ki'),
        ("strange", json.dumps({"key": "k", "address": "sft", "started": 0}), "[]\n"),
    ):
        (spool / name).mkdir(parents=True)
        (spool / name / "run.json").write_text(header)
        (spool / name / "events.jsonl").write_text(events)
    assert waiting(environment) == 5
    assert deliver_spool(environment) == 0
    assert sorted(path.name for path in (spool / "bad").iterdir()) == [
        "half", "list", "other", "strange", "torn",
    ]  # fmt: skip
    assert len(caplog.messages) == 5
    assert all("a run in the spool can't be delivered" in message for message in caplog.messages)
    assert waiting(environment) == 0
    assert deliver_spool(environment) == 0
    assert len(caplog.messages) == 5, "it is logged once"


def test_a_spool_that_another_process_delivers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("erv.tracking.delivery._LOCK_SECONDS", 0.1)
    environment = Environment(tmp_path, mlflow_uri="http://127.0.0.1:9")
    write_header(environment.state / "spool" / "k", RunHeader("k", "sft", 0))
    with FileLock(environment.state / "spool" / ".lock"):
        assert deliver_spool(environment) == 0
    assert "another process has been delivering .erv/spool" in caplog.text
    assert waiting(environment) == 1


def test_a_fault_of_the_delivery_is_reported_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_late(self: Outbox) -> None:
        if self.active:  # MLflow was down when the run began; now it is opened by the thread
            raise ZeroDivisionError("ours")

    monkeypatch.setattr(Outbox, "_open_in_mlflow", open_late)
    run = StageRun(Environment(tmp_path, mlflow_uri="http://127.0.0.1:9"), RunHeader("k", "sft", 0))
    run.open()
    run.log_metrics({"a": 1.0})
    run.close("FINISHED")
    assert "delivery to MLflow has stopped (ZeroDivisionError: ours)" in caplog.text
    assert "can't be reached" not in caplog.text
    assert len((tmp_path / ".erv/spool/k/events.jsonl").read_text().splitlines()) == 2


def test_a_table_is_a_text_and_a_tag_that_mlflow_knows(tmp_path: Path) -> None:
    environment = Environment(tmp_path, mlflow_uri="http://127.0.0.1:9", s3_secret_key="very secret")
    run = StageRun(environment, RunHeader("k", "grpo", 0))
    run.open()
    run._outbox._closing_until = 0.0  # nothing is waited for
    for step in range(60):
        run.log_table(["step", "text"], [[step, "it is very secret"]], f"samples/{step}")
    events = [event for event in run._outbox._pending if event["kind"] in ("text", "tags")]
    assert json.loads(events[0]["text"]) == {"columns": ["step", "text"], "data": [[0, "it is ***"]]}
    assert events[0]["name"] == "samples/0.json"
    tables = json.loads(events[-1]["values"]["mlflow.loggedArtifacts"])
    assert tables[0] == {"path": "samples/10.json", "type": "table"}
    assert len(tables) == 50
    assert len(events[-1]["values"]["mlflow.loggedArtifacts"]) < 8000


def test_run_without_server_does_nothing(tmp_path: Path) -> None:
    run = open_run(Environment(tmp_path), "sft", "sft")
    run.log_metrics({"a": 1.0})
    run.log_artifact(tmp_path / "nowhere")
    run.close("FINISHED")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("ExpiredToken", "s3://b/k: the session token for S has expired; renew it and ERV_S3_SESSION_TOKEN"),
        ("NoSuchBucket", "s3://b/k: bucket 'b' does not exist at S; `erv stack up` creates ours"),
        ("SlowDown", "s3://b/k: S answered SlowDown: reduce"),
    ],
)
def test_storage_errors_that_seaweedfs_does_not_give(code: str, sentence: str) -> None:
    error = ClientError({"Error": {"Code": code, "Message": "reduce.\n"}}, "GetObject")
    assert explain(error, "s3://b/k", "S") == sentence


def test_ambient_profile_that_does_not_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nonexistent")
    with pytest.raises(StorageError, match="no usable AWS credentials"):
        open_store(Environment(tmp_path, s3_ambient=True))


def test_store_is_not_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of the user")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of the user")
    with pytest.raises(StorageError, match="no object store is configured; run `erv stack up`"):
        open_store(Environment(tmp_path))


def test_uris() -> None:
    assert split_uri("s3://bucket/a/b/") == ("bucket", "a/b")
    assert split_uri("s3://bucket") == ("bucket", "")
    for uri in ("/local", "file:///x", "s3://", "s3:bucket"):
        with pytest.raises(StorageError, match="expected s3://bucket/key"):
            split_uri(uri)
