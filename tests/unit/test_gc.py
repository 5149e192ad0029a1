"""`erv gc` and a home of workers that isn't there."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from erv.commands.gc import command
from erv.errors import StackError


def test_a_home_that_is_named_wrongly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was passed over, so a slip in its name looked like success."""
    monkeypatch.setenv("ERV_WORKER_HOME", str(tmp_path / "nosuch"))
    done = CliRunner().invoke(command, ["--dry"])
    assert isinstance(done.exception, StackError)
    assert str(done.exception).startswith(f"ERV_WORKER_HOME names {tmp_path}/nosuch, which is no folder; ")
    assert not done.output, "before anything is removed"
