"""OpenLineage events of a flow: to a file, to a collector, and what a collector that is away costs."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from erv.environment import Environment
from erv.pipeline import read_lock_entries
from tests.integration.scratch import Scratch

pytestmark = pytest.mark.integration


@pytest.fixture
def scratch(stack: Environment, tmp_path: Path) -> Scratch:
    folder = tmp_path / "openlineage"
    folder.mkdir()
    return Scratch(folder, stack)


class Collector(BaseHTTPRequestHandler):
    events: list[dict[str, Any]]

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.events.append(json.loads(content))
        self.send_response(201)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    events: list[dict[str, Any]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Ours", (Collector,), {"events": events}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", events
    server.shutdown()


@pytest.mark.slow
def test_events_of_a_flow_reach_a_collector(
    scratch: Scratch, collector: tuple[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, events = collector
    monkeypatch.setenv("OPENLINEAGE_URL", url)
    scratch.erv("run")
    told = {(event["job"]["name"], event["eventType"]) for event in events}
    jobs = ("train", "make@a", "make@b", "join", "last")
    assert told == {(job, state) for job in jobs for state in ("START", "COMPLETE")}
    (last,) = [event for event in events if event["job"]["name"] == "last" and event["eventType"] == "START"]
    flow = scratch.runs()["train"][0].data.tags["prefect.flow_run_id"]
    assert last["run"]["facets"]["parent"]["run"]["runId"] == flow
    joined = next(item for item in last["inputs"] if item["name"] == "joined.txt")
    lock = read_lock_entries(scratch.folder / "dvc.lock")
    assert joined["facets"]["version"]["datasetVersion"] == lock["join"]["outs"][0]["md5"]
    assert joined["namespace"] == f"s3://{scratch.environment.dvc_bucket}"
    assert [item["name"] for item in last["outputs"]] == ["last.txt"]


@pytest.mark.slow
def test_a_failed_stage_says_why_in_a_file(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    path = scratch.folder / "events.jsonl"
    for name, value in {"TYPE": "file", "LOG_FILE_PATH": str(path), "APPEND": "true"}.items():
        monkeypatch.setenv(f"OPENLINEAGE__TRANSPORT__{name}", value)
    scratch.control("join", "0 fail")
    assert scratch.erv("run", check=False).returncode == 1
    events = [json.loads(line) for line in path.read_text().splitlines()]
    (failed,) = [e for e in events if e["job"]["name"] == "join" and e["eventType"] == "FAIL"]
    message = failed["run"]["facets"]["errorMessage"]["message"]
    assert "clip 7 of the scratch set is broken" in message


@pytest.mark.slow
def test_a_collector_that_is_away_costs_no_stage(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENLINEAGE_CONFIG", str(scratch.folder / "openlineage.yml"))
    transport = {"type": "http", "url": "http://127.0.0.1:9", "timeout": 1, "retry": {"total": 0}}
    (scratch.folder / "openlineage.yml").write_text(json.dumps({"transport": transport}))
    result = scratch.erv("run")
    assert "no OpenLineage event START of" in result.stdout + result.stderr
