"""The doctor in damaged workspaces: it goes on, names the fault and says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from erv.doctor.doctor import examine
from erv.doctor.finding import Finding
from erv.libraries import lock_of, running_python
from tests.fuzz.state import write_workspace


def failures(workspace: Path) -> list[Finding]:
    found = examine(workspace)
    assert found[0].name in ("python", "environment")
    assert {"python", "packages", "disk", "git", "dvc"} <= {finding.name for finding in found}
    assert not [finding for finding in found if "\n" in finding.detail]
    return [finding for finding in found if finding.state == "fail"]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("ERV_S3_ENDPOINT", "ERV_MLFLOW_URI", "ERV_PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    return write_workspace(tmp_path)


@pytest.mark.parametrize(
    ("file", "damage", "name", "detail", "remedy"),
    [
        (".erv/stack.env", b"\xff", "environment", "not UTF-8", "delete .erv/stack.env and run"),
        ("dvc.lock", b"", "dvc", "dvc.lock: empty", "`erv run` restores it"),
        ("dvc.lock", b"\xff\xfe", "dvc", "dvc.lock: can't be read as UTF-8", "`erv run` restores it"),
        ("dvc.lock", b"schema: '2.0'\n", "dvc", "3 of 3 entries are missing", "`erv run` restores it"),
        ("params.yaml", b"[" * 100_000, "params", "nested too deeply", "correct params.yaml"),
        ("params.yaml", b"\xff", "params", "can't be read as UTF-8", "correct params.yaml"),
        ("data/sources/dfew.lock.json", b"[1", "sources", "dfew.lock.json: not a", "`erv data pin dfew`"),
        ("dvc.yaml", b"{a: " * 100_000, "pipeline", "(nested too deeply)", "restore it from git"),
        ("dvc.yaml", b"stages: 1", "pipeline", "dvc.yaml: no stages found", "restore it from git"),
        (".dvc/config", b"[core", "dvc", "config: damaged", "restore it from git"),
        (".dvc/config.local", b"\xff", "dvc", "config.local: damaged", "delete it and run `erv stack up`"),
        (str(lock_of(running_python())), b"\xff", "packages", ".lock: damaged", "restore it from git"),
    ],
)  # fmt: skip
def test_it_names_the_fault_and_the_remedy(
    workspace: Path, file: str, damage: bytes, name: str, detail: str, remedy: str
) -> None:
    (workspace / file).parent.mkdir(exist_ok=True)
    (workspace / file).write_bytes(damage)
    found = [finding for finding in failures(workspace) if finding.name == name and detail in finding.detail]
    assert [remedy in finding.remedy for finding in found] == [True]
