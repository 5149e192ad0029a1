"""What `erv publish` says before it asks any server."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from erv.commands.publish import command
from tests.support.paths import ROOT


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace without servers; the candidate is all that was made in it."""
    for name in [name for name in os.environ if name.startswith(("ERV_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").symlink_to(ROOT / "src")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


def made_with(workspace: Path, **parameters: Any) -> None:
    outs = [{"path": "models/candidate", "md5": "2" * 32 + ".dir"}]
    entry = {"cmd": "x", "outs": outs, "params": {"params.yaml": parameters}}
    text = yaml.safe_dump({"schema": "2.0", "stages": {"register": entry}})
    (workspace / "dvc.lock").write_text(text)


def test_parameters_of_now_that_did_not_make_the_candidate_are_named(workspace: Path) -> None:
    now = yaml.safe_load((workspace / "params.yaml").read_text())
    made_with(workspace, seed=now["seed"] + 1)
    said = CliRunner().invoke(command, []).output
    assert f"not run with these parameters: register (seed {now['seed'] + 1} → {now['seed']})" in said
    assert "its lineage follows dvc.lock" in said
    assert "`erv run` runs these stages" in said
    made_with(workspace, seed=now["seed"])
    assert "not run with" not in CliRunner().invoke(command, []).output


def test_of_long_lists_the_warning_says_how_many_items_differ(workspace: Path) -> None:
    now = yaml.safe_load((workspace / "params.yaml").read_text())
    gates = now["register"]["gates"]
    made_with(workspace, **{"register.gates": [*gates[2:], {"metric": "WAR", "minimum": 0.123}]})
    said = CliRunner().invoke(command, []).output
    assert "not run with these parameters: register (register.gates: 2 added, 1 gone);" in said
