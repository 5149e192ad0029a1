"""Exit codes: one table, which code, help and docs share."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner
from prefect.states import Cancelled, Failed

from erv.cli import command, main
from erv.errors import EXIT_CODES, DataError, ExitCode, SettingsError
from erv.pipeline import StageCancelledError
from flows import below_sweep, run, sweep, trial
from flows.ending import ending
from tests.support.paths import ROOT

ENDS = {"exit", "SystemExit", "Exit"}


def test_the_docs_have_the_table() -> None:
    text = (ROOT / "docs/daily.md").read_text(encoding="utf-8")
    _, _, table = text.partition("| exit code | of | means |\n|---|---|---|\n")
    rows = [row.strip("| ").split(" | ") for row in table.partition("\n\n")[0].splitlines()]
    assert rows == [
        [str(line.code.value), f"`{line.command}`" if line.command else "every command", line.means]
        for line in EXIT_CODES
    ]


def test_no_other_page_lists_them() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    assert [page.name for page in pages if "| exit code |" in page.read_text(encoding="utf-8")] == [
        "daily.md"
    ]


def test_every_code_is_explained() -> None:
    assert {line.code for line in EXIT_CODES} == set(ExitCode)
    assert (SettingsError.exit_code, StageCancelledError.exit_code) == (2, 130)


def test_a_command_that_the_table_names_exists() -> None:
    for line in EXIT_CODES:
        words = [word for word in line.command.split()[1:] if word != "TARGET"]
        help_text = CliRunner().invoke(command, [*(w for w in words if w[0] != "-"), "--help"])
        assert help_text.exit_code == 0, line
        assert all(word in help_text.output for word in words if word[0] == "-"), line


def test_lineage_explains_its_codes() -> None:
    said = " ".join(CliRunner().invoke(command, ["lineage", "--help"]).output.split())
    for line in EXIT_CODES:
        if line.command.startswith("erv lineage"):
            option = line.command.removeprefix("erv lineage").strip()
            assert f"{line.code.value} {option}: {line.means}" in said


def test_no_command_ends_with_a_number_of_its_own() -> None:
    """`erv lineage --withdrawn` ended with 1 where the rest of lineage ends with 4."""
    found = []
    for path in [*(ROOT / "src/erv/commands").glob("*.py"), ROOT / "flows/run.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and re.split(r"\.", ast.unparse(node.func))[-1] in ENDS:
                found += [
                    f"{path.name}:{node.lineno}"
                    for given in node.args
                    if isinstance(given, ast.Constant) and isinstance(given.value, int)
                ]
    assert found == []


@pytest.mark.parametrize("fault", ["seed", "ERV_S3_ENDPOINT"])
@pytest.mark.parametrize("words", ["run", "run --dry", "run --deploy", "publish", "champions", "doctor"])
def test_wrong_settings_end_commands_as_the_table_says(
    words: str,
    fault: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`erv run` ended with 1 for a parameter and with 2 for an address."""
    for name in ("src", "flows", "dvc.yaml", "prefect.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    params = (ROOT / "params.yaml").read_text(encoding="utf-8")
    if fault == "seed":
        params = params.replace("seed: 101 ", "seed: -5 ")
    else:
        monkeypatch.setenv(fault, "http://localhost:0")
    (tmp_path / "params.yaml").write_text(params, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    of_it = ("", f"erv {words}")  # its own line comes first
    line = next(line for line in EXIT_CODES if "wrong" in line.means and line.command in of_it)
    assert ended.value.code == line.code
    said = capsys.readouterr()
    assert fault in said.err + said.out


def test_a_fault_ends_a_flow_with_the_code_that_it_has_before_one() -> None:
    """`erv sweep run` and `erv run` ended with 1 for a wrong parameter that only the flow looked at."""
    ends = {
        SettingsError("seed: expected 0 or more"): ExitCode.USAGE,
        DataError("clip 7 is broken"): ExitCode.ERROR,
        ValueError("a bug"): ExitCode.ERROR,
    }
    for error, code in ends.items():
        assert ending(Failed(message=str(error), data=error)) == (str(error), code)
    assert ending(Failed(name="Lost")) == ("the flow ended as Lost", ExitCode.ERROR)
    assert ending(Cancelled(message="cancelled")) == ("cancelled", ExitCode.CANCELLED)


@pytest.mark.parametrize(
    ("module", "flow", "arguments"),
    [(run, "train", []), (trial, "trial", ["sft"]), (sweep, "sweep", ['{"name": "beta"}'])],
)
def test_all_flows_of_a_terminal_end_the_same_way(
    module: ModuleType,
    flow: str,
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ended = Failed(message="seed: expected 0 or more", data=SettingsError("seed: expected 0 or more"))
    monkeypatch.setattr(module, flow, lambda *_, **__: ended)
    monkeypatch.setattr(run, "require", lambda *_: "")  # no server is asked
    monkeypatch.setattr(below_sweep, "ends_in_order", lambda: None)
    monkeypatch.chdir(ROOT)
    assert module.main(arguments) == ExitCode.USAGE
    said = capsys.readouterr()
    assert "error: seed: expected 0 or more\n" in said.err + said.out
