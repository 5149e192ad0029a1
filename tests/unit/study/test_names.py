"""A study is named, not pointed at: a path as its name leads to other folders, or to the study itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from erv.cli import command
from erv.errors import SettingsError
from erv.study.plan import folder_of
from tests.support.large_study import write_large_study
from tests.support.paths import ROOT

COMMANDS = {
    "prepare": [],
    "extend": [],
    "invite": [],
    "revoke": ["r0"],
    "serve": ["--port", "0"],
    "status": [],
    "export": [],
    "import": ["answers.json", "--from", "label-studio"],
    "report": ["--without-judges"],
    "simulate": ["--strength", "erv=1", "--strength", "sft=0"],
}


@pytest.mark.parametrize("name", list(COMMANDS))
def test_a_path_as_a_name_changes_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    folder = write_large_study(tmp_path / "studies" / "first", clips=2, raters=2, overlap=1)
    (folder / "media").mkdir()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    result = CliRunner().invoke(command, ["study", name, str(folder), *COMMANDS[name]])
    assert isinstance(result.exception, SettingsError)
    assert "can't be called" in str(result.exception)
    assert "such as first for studies/first" in str(result.exception)
    assert (folder / "media").is_dir()
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_every_command_is_here() -> None:
    from erv.commands.study import COMMANDS as KNOWN

    assert set(COMMANDS) == set(KNOWN)


@pytest.mark.parametrize("name", ["../first", "studies/first", "first/", "", ".", "first\n", "First"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(SettingsError, match="can't be called"):
        folder_of(name)
    assert folder_of("first-2_b") == Path("studies/first-2_b")
