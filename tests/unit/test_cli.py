"""The command line: quick, lazy, and its errors are sentences."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from erv.cli import COMMANDS, FORMER, command, main

HEAVY = (
    "torch",
    "transformers",
    "mlflow",
    "great_expectations",
    "prefect",
    "decord",
    "datasets",
    "boto3",
    "numpy",
)


def test_help_is_quick_and_imports_nothing_heavy(root: Path) -> None:
    code = (
        "import sys\nfrom erv.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    # What makes it quick: none of these takes its second or more. A clock would measure the machine.
    assert said.stderr.strip() == "[]"
    assert "stack" in said.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    result = CliRunner().invoke(command, [name, "--help"])
    assert result.exit_code == 0, result.output
    loaded = command.get_command(None, name)  # type: ignore[arg-type]
    assert loaded is not None
    assert loaded.name == name
    assert loaded.get_short_help_str(200)


def commands_below(group: click.Group, *names: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name in group.list_commands(click.Context(group)):
        found = group.get_command(click.Context(group), name)
        assert found is not None
        yield (*names, name), found
        if isinstance(found, click.Group):
            yield from commands_below(found, *names, name)


def test_no_help_has_marks_that_click_did_not_read_or_a_table_that_it_ran_together() -> None:
    """A mark in a raw docstring is two characters, which click prints, and wraps what follows."""
    found = dict(commands_below(command))
    assert ("study", "export") in found
    for names, one in found.items():
        said = one.help or ""
        assert "\\b" not in said, names
        for paragraph in said.split("\n\n"):
            is_table = any(re.search(r"\S {2,}\S", line) for line in paragraph.splitlines())
            assert not is_table or paragraph.lstrip().startswith("\b"), (names, paragraph)


@pytest.mark.parametrize(("before", "now"), FORMER.items())
def test_a_former_name_works_and_says_the_new_one(before: str, now: str) -> None:
    result = CliRunner().invoke(command, [before, "--help"])
    assert result.exit_code == 0
    assert f"erv {before} is now called erv {now}\n" in result.output
    assert before not in COMMANDS
    assert now in COMMANDS


def sentence(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code not in (0, None)
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1
    return said


def test_what_the_system_refuses_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert f"{tmp_path}/file" in sentence(capsys, "sample-data", "--out", f"{tmp_path}/file/x")
    assert "can't be read as UTF-8 text" in sentence(capsys, "params", "--file", str(tmp_path))
    (tmp_path / "params.yaml").write_bytes(b"\xff\xfe\x00")
    assert "can't be read as UTF-8 text" in sentence(capsys, "params")


def test_text_that_is_none(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe\x00abc.")))
    assert "standard input: not UTF-8 text (byte 0)" in sentence(capsys, "verify")


def test_the_doctor_works_where_the_environment_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".erv").mkdir()
    (tmp_path / ".erv" / "stack.env").write_text("what is this")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(command, ["doctor"])
    assert result.exit_code == 1
    assert "delete .erv/stack.env" in result.output


def test_unknown_command() -> None:
    result = CliRunner().invoke(command, ["stak"])
    assert result.exit_code == 2
    assert "No such command 'stak'" in result.output


def test_errors_are_sentences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["params"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == (
        "error: params.yaml: not found; run this from the top of the repository\n"
    )


def test_params_are_shown_flat(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    result = CliRunner().invoke(command, ["params", "show", "extract.s"])
    lines = ["extract.size: 64", "extract.sample_rate: 16000", "extract.short_folders: repeat"]
    assert result.output.splitlines() == lines
    assert CliRunner().invoke(command, ["params"]).output == "params.yaml: no faults\n"
