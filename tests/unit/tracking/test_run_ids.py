"""Runs by the beginning of their ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from erv.environment import Environment
from erv.errors import RegistryError
from erv.tracking import run_ids
from erv.tracking.rest import Run, RunData, RunInfo


def run(run_id: str) -> Run:
    return Run(RunInfo(run_id, "1", "a run", "FINISHED", 0, 0, ""), RunData())


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What MLflow was asked; two of its runs begin alike."""
    asked: list[str] = []
    known = ["531a9623" + "0" * 24, "531a9623" + "1" * 24, "34fb0057" + "0" * 24]

    def search(_: Environment, condition: str, **__: Any) -> list[Run]:
        asked.append(condition)
        beginning = condition.split("'")[1].removesuffix("%")
        return [run(run_id) for run_id in known if run_id.startswith(beginning)]

    monkeypatch.setattr(run_ids, "search", search)
    return asked


def test_one_run_is_found_and_several_are_named(asked: list[str], tmp_path: Path) -> None:
    environment = Environment(tmp_path)
    found = run_ids.run_beginning(environment, "34fb0057")
    assert found == run("34fb0057" + "0" * 24)
    assert run_ids.run_beginning(environment, "531a96231") == run("531a9623" + "1" * 24)
    assert run_ids.run_beginning(environment, "00000000") is None
    both = f"several runs begin so: 531a9623{'0' * 24}, 531a9623{'1' * 24}; give more digits"
    with pytest.raises(RegistryError, match=both):
        run_ids.run_beginning(environment, "531a9623")
    assert len(asked) == 4


@pytest.mark.parametrize("text", ["34fb005", "34FB0057", "quarter", "34fb0057%", "34fb0057' or '", "0" * 32])
def test_nothing_else_is_asked_for(text: str, asked: list[str], tmp_path: Path) -> None:
    assert run_ids.run_beginning(Environment(tmp_path), text) is None
    assert asked == []
