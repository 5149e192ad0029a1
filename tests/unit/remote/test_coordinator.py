"""A clone waits on boards by one id, which no copy of it, and no other machine, has."""

from __future__ import annotations

import dataclasses
import platform
import shutil
from pathlib import Path

import pytest

from erv.environment import Environment, load_environment
from erv.remote.coordinator import coordinator_of


@pytest.fixture
def clone(tmp_path: Path) -> Environment:
    return dataclasses.replace(load_environment(), workspace=tmp_path / "clone")


def test_it_stays(clone: Environment) -> None:
    assert coordinator_of(clone) == coordinator_of(clone)


def test_it_is_of_one_clone(clone: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = coordinator_of(clone)
    shutil.copytree(clone.workspace, tmp_path / "copy")
    assert coordinator_of(dataclasses.replace(clone, workspace=tmp_path / "copy")) != first
    assert coordinator_of(dataclasses.replace(clone, workspace=tmp_path / "another")) != first
    monkeypatch.setattr(platform, "node", lambda: "elsewhere")
    assert coordinator_of(clone) != first, "a copy on another machine, in the same folder"
    monkeypatch.undo()
    (clone.state / "coordinator").unlink()
    assert coordinator_of(clone) != first, "another machine of the same name, with the same folder"
