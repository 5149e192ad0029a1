"""Whether a run made a lock entry: DVC's own run cache, which DVC itself writes here."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from erv.environment import Environment
from erv.lineage.made import run_cache_key, unmade
from erv.pipeline import read_lock_entries

PIPELINE = """
stages:
  train:
    cmd: mkdir -p model && echo ${a} ${b} > model/weights
    deps: [data.txt]
    params: [a, b, rate]
    outs: [model]
  evaluate:
    cmd: cp model/weights eval.txt
    deps: [model]
    params: [word]
    outs: [eval.txt]
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "data.txt").write_text("clips\n")
    for command in (["init", "-q", "--no-scm"], ["repro", "-q"]):
        (folder / "params.yaml").write_text('a: 1\nb: 1\nrate: 2.0e-5\nword: "yes"\n')
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=folder, check=True, capture_output=True)
    return folder


def of(workspace: Path, name: str, entry: dict[str, Any]) -> str | None:
    return unmade(name, entry, Environment(workspace=workspace), None)


def test_what_dvc_ran_was_made(workspace: Path) -> None:
    entries = read_lock_entries(workspace / "dvc.lock")
    assert [of(workspace, name, entry) for name, entry in entries.items()] == [None, None]


@pytest.mark.parametrize("part", ["parameter", "input", "output"])
def test_an_entry_of_two_peoples_lines_was_not(workspace: Path, part: str) -> None:
    entry = copy.deepcopy(read_lock_entries(workspace / "dvc.lock")["train"])
    if part == "parameter":
        entry["params"]["params.yaml"]["b"] = 0.5
    else:
        entry["deps" if part == "input" else "outs"][0]["md5"] = "0" * 32
    reason = of(workspace, "train", entry)
    assert reason is not None
    assert "no run in MLflow and none in DVC's run cache made it" in reason
    assert reason.endswith("run `erv run --force train`")


def test_the_key_is_that_of_dvc(workspace: Path) -> None:
    """Also with a small number, which DVC writes as `2e-05`; the key finds runs in the remote."""
    key = run_cache_key(read_lock_entries(workspace / "dvc.lock")["train"])
    assert (workspace / ".dvc/cache/runs" / key[:2] / key).is_dir()


def test_a_damaged_file_of_the_cache_proves_nothing(workspace: Path) -> None:
    entry = read_lock_entries(workspace / "dvc.lock")["evaluate"]
    kept = [path for path in (workspace / ".dvc/cache/runs").rglob("*") if path.is_file()]
    contents = {path: path.read_bytes() for path in kept}
    for path in kept:
        path.write_bytes(b"{")
    try:
        assert of(workspace, "evaluate", entry) is not None
    finally:
        for path, content in contents.items():
            path.write_bytes(content)
