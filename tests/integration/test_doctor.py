"""`erv doctor` against real servers: what is there, and the remedy for what is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from erv.doctor.doctor import examine
from erv.doctor.finding import Finding
from erv.environment import Environment

pytestmark = pytest.mark.integration


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_servers_that_work(stack: Environment) -> None:
    findings = by_name(examine(stack.workspace))
    for name in (
        "stack s3",
        "stack mlflow",
        "stack prefect",
        "storage",
        "tracking",
        "prefect",
        "dvc",
        "params",
    ):
        assert findings[name].state == "ok", findings[name]
    assert findings["storage"].detail == f"{stack.s3_endpoint} accepts the key, all three buckets are there"
    assert "spool" not in findings


def test_missing_pins_have_a_remedy(stack: Environment) -> None:
    finding = by_name(examine(stack.workspace))["sources"]
    assert (finding.state, finding.remedy) == ("fail", "`make data`, or `erv data pin`")
    assert "mafw, dfew" in finding.detail
    folder = stack.workspace / "data" / "sources"
    folder.mkdir(parents=True)
    for name in ("mafw", "dfew", "reasoning", "base", "judge"):
        lock = {"name": name, "uri": f"s3://erv-raw/{name}", "files": []}
        (folder / f"{name}.lock.json").write_text(json.dumps(lock))
    assert by_name(examine(stack.workspace))["sources"].state == "ok"
    lock = {"name": "mafw", "uri": "s3://elsewhere/mafw", "files": []}
    (folder / "mafw.lock.json").write_text(json.dumps(lock))
    assert by_name(examine(stack.workspace))["sources"].detail == "not pinned where params.yaml says: mafw"


@pytest.mark.slow
def test_wrong_key_and_dead_servers(stack: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERV_S3_SECRET_KEY", "wrong")
    monkeypatch.setenv("ERV_MLFLOW_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("ERV_PREFECT_API_URL", f"{stack.mlflow_uri}/nothing")
    findings = by_name(examine(stack.workspace))
    assert findings["storage"].state == "fail"
    assert "refuses the key" in findings["storage"].detail
    assert findings["storage"].remedy.startswith("check ERV_S3_ACCESS_KEY and ERV_S3_SECRET_KEY")
    assert findings["tracking"].detail == "MLflow at http://127.0.0.1:9 can't be reached"
    assert findings["prefect"].state == "fail"
    assert "ERV_S3_SECRET_KEY" in findings["variables"].detail
    assert "wrong" not in str(findings), "no key in what is printed"


def test_command_says_what_to_do_and_exits_with_1(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("erv")), "doctor"]
    environment = {**os.environ, "AWS_PROFILE": "nonexistent"}
    said = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert said.returncode == 1
    assert "FAIL  stack           the local stack has not been started here" in said.stdout
    assert "-> run `erv stack up`, or set ERV_* variables to use servers elsewhere" in said.stdout
    assert "FAIL  git" in said.stdout
    assert "Traceback" not in said.stderr
