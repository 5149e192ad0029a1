"""The code of one clone doesn't run in another."""

from __future__ import annotations

import shutil
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import flows
from erv.commands import import_, publish
from erv.commands.run import command
from erv.errors import StackError
from erv.stack.own_code import require_own_code
from tests.conftest import ROOT

FLOWS = Path(str(flows.__file__)).parent


def test_the_code_of_this_clone_is_accepted_by_any_path_to_it(tmp_path: Path) -> None:
    require_own_code(ROOT, flows=FLOWS)
    (tmp_path / "link").symlink_to(ROOT)
    require_own_code(tmp_path / "link", flows=FLOWS)


def test_the_code_of_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StackError) as refused:
        require_own_code(tmp_path)
    assert str(refused.value).startswith(
        f"{tmp_path}: `erv` is imported from {ROOT / 'src/erv'}, not from {tmp_path / 'src/erv'}, so"
    )
    (tmp_path / "src").symlink_to(ROOT / "src")
    require_own_code(tmp_path)
    with pytest.raises(StackError, match=f"`flows` is imported from {FLOWS}, not from {tmp_path / 'flows'}"):
        require_own_code(tmp_path, flows=FLOWS)


def test_erv_run_refuses_it_before_anything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").touch()
    for words in ([], ["--deploy"], ["--worker"]):
        error = CliRunner().invoke(command, words).exception
        assert isinstance(error, StackError)
        assert "would mix two code bases" in str(error)


@pytest.mark.parametrize("registers", [publish.command, import_.command])
def test_no_command_registers_the_code_of_another_clone(
    registers: click.Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`erv publish` stored it as that of the commit which is checked out in this clone."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "folder").mkdir()
    words = ["folder"] if registers is import_.command else []
    error = CliRunner().invoke(registers, words).exception
    assert isinstance(error, StackError), error
    assert "would mix two code bases" in str(error)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "params.yaml"]


def test_runs_are_cancelled_only_where_deployments_are_made() -> None:
    result = CliRunner().invoke(command, ["--cancel-waiting"])
    assert result.exit_code == 2
    assert "--cancel-waiting goes with --deploy" in result.output
