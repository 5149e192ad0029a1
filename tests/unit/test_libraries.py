"""What is installed is what results are recorded with, or nothing is computed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from erv.cli import command
from erv.doctor.doctor import _found_by
from erv.doctor.machine_check import packages, python
from erv.doctor.preflight import check
from erv.environment import load_environment
from erv.errors import SettingsError, StackError
from erv.libraries import PYTHONS, installed_unlike, lock_of, require_locked, running_python
from erv.pipeline import PipelineError
from erv.settings import parse_settings
from tests.support.paths import ROOT

PYTHON = running_python()
LOCK = lock_of(PYTHON)
OTHER = next(name for name in PYTHONS if name != PYTHON)
STAGE = """
from pathlib import Path
from erv.stage import Option, run_stage

def main(arguments, settings, run):
    run.log_metrics({"work": 1.0})
    arguments.out.write_text("done")

run_stage("work", main, Option("out", Path))
"""


def lock(folder: Path, *lines: str) -> Path:
    path = folder / LOCK
    path.parent.mkdir(exist_ok=True)
    path.write_text("# a comment\n" + "\n".join(lines) + "\n")
    return path


def recorded(folder: Path, python: str) -> None:
    """Parameters that record results with the libraries of this Python."""
    params = (ROOT / "params.yaml").read_text()
    assert params.count("python: '3.11'") == 1
    (folder / "params.yaml").write_text(params.replace("python: '3.11'", f"python: '{python}'"))


@pytest.fixture
def pulled(tmp_path: Path) -> Path:
    """A workspace after a `git pull` with other versions, and no `make install`."""
    lock(tmp_path, "torch==0.0.1", f"numpy=={version('numpy')}", "no-such-thing==1.0")
    recorded(tmp_path, PYTHON)
    (tmp_path / "work.py").write_text(STAGE)
    return tmp_path


def work(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "work.py", "--out", "out.txt"],
        cwd=folder,
        env={"PYTHONPATH": f"{ROOT / 'src'}", "PATH": str(Path(sys.executable).parent), **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_what_is_installed_is_what_the_lock_says() -> None:
    assert installed_unlike(ROOT / LOCK) == []
    assert (ROOT / LOCK).is_file()


def test_other_versions_and_missing_ones_are_named(tmp_path: Path) -> None:
    torch = version("torch")
    path = lock(tmp_path, "torch==0.0.1", f"NumPy=={version('numpy')}", "no-such-thing==1.0  # needed")
    assert installed_unlike(path) == [f"torch {torch} instead of 0.0.1", "no-such-thing is missing"]


def test_a_build_of_the_same_version_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, torch comes as 2.13.0+cu130."""
    for name, installed in (("torch", "2.13.0+cu130"), ("trl", "1.16.0rc1")):
        folder = tmp_path / "site" / f"{name}-{installed}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.4\nName: {name}\nVersion: {installed}\n\nVersion: 9\n"
        )
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert installed_unlike(lock(tmp_path, "torch==2.13.0", "trl==1.16.0")) == [
        "trl 1.16.0rc1 instead of 1.16.0"
    ]


def test_lines_for_other_machines_do_not_count(tmp_path: Path) -> None:
    path = lock(tmp_path, 'no-such-thing==1.0; platform_machine == "none"')
    assert installed_unlike(path) == []


def test_a_folder_without_a_lock_has_nothing_to_compare(tmp_path: Path) -> None:
    assert require_locked(tmp_path, OTHER) == ""


@pytest.mark.parametrize("damage", [b"\xff", b"torch = = 2\n"])
def test_a_damaged_lock_is_named(tmp_path: Path, damage: bytes) -> None:
    lock(tmp_path).write_bytes(damage)
    with pytest.raises(StackError, match=r"results-3\.1\d\.lock: damaged \(.+\); restore it from git$"):
        require_locked(tmp_path, PYTHON)


def test_a_stage_refuses_before_it_works(pulled: Path) -> None:
    """It computed with the old torch, and DVC wrote down the new lock."""
    said = work(pulled)
    assert (said.returncode, (pulled / "out.txt").exists()) == (1, False)
    assert said.stderr.splitlines()[-1] == (
        f"error: work: the installed libraries are not those of {LOCK}, with which results"
        f" are recorded: torch {version('torch')} instead of 0.0.1, no-such-thing is missing; run `make"
        " install`, or set ERV_OTHER_LIBRARIES=accept to work with them, which the MLflow runs then say"
    )
    assert work(pulled, ERV_OTHER_LIBRARIES="yes").returncode == 1


def test_a_stage_works_with_others_if_that_is_asked_for(pulled: Path) -> None:
    said = work(pulled, ERV_OTHER_LIBRARIES="accept")
    assert said.returncode == 0, said.stderr
    assert (pulled / "out.txt").read_text() == "done"
    assert (
        f"WARNING works with other libraries than those of {LOCK}: torch"
        f" {version('torch')} instead of 0.0.1, no-such-thing is missing" in said.stderr
    )


def test_a_run_says_it_before_anything_starts(pulled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        PipelineError, match=r"^the installed libraries are not those of requirements/results"
    ):
        check(load_environment(pulled), [])
    monkeypatch.setenv("ERV_OTHER_LIBRARIES", "accept")
    check(load_environment(pulled), [])


def test_a_publication_does_not_evaluate_with_others(pulled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It evaluates the champion if that was tested otherwise."""
    monkeypatch.chdir(pulled)
    monkeypatch.setattr("erv.stack.own_code.require_own_code", lambda workspace: None)
    said = CliRunner().invoke(command, ["publish"])
    assert "the installed libraries are not those" in str(said.exception)


def test_the_doctor_calls_it_an_error(pulled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock(pulled, "torch==0.0.1")
    (finding,) = _found_by(packages, load_environment(pulled))
    assert (finding.state, finding.remedy) == ("fail", "`make install`")
    assert finding.detail.endswith(
        "torch 2.13.0 instead of 0.0.1; no stage runs with these".replace("2.13.0", version("torch"))
    )
    monkeypatch.setenv("ERV_OTHER_LIBRARIES", "accept")
    (finding,) = _found_by(packages, load_environment(pulled))
    assert finding.state == "warn"
    # A tool of another version changes no result.
    (pulled / LOCK).rename(pulled / f"requirements/tools-{PYTHON}.lock")
    monkeypatch.delenv("ERV_OTHER_LIBRARIES")
    (finding,) = _found_by(packages, load_environment(pulled))
    assert finding.state == "warn"


def test_a_stage_refuses_under_another_python_than_results_are_recorded_with(pulled: Path) -> None:
    """From 3.12 on, `sum` rounds otherwise; `dvc.lock` would name the libraries of the other one."""
    lock(pulled, f"numpy=={version('numpy')}").rename(pulled / lock_of(OTHER))
    recorded(pulled, OTHER)
    said = work(pulled)
    assert (said.returncode, (pulled / "out.txt").exists()) == (1, False)
    assert said.stderr.splitlines()[-1] == (
        f"error: work: this is Python {PYTHON}, and runtime.python in params.yaml says {OTHER}, with whose"
        f" libraries results are recorded; run `make install PYTHON=python{OTHER}`, set runtime.python to"
        f" {PYTHON}, which makes all results anew, or set ERV_OTHER_LIBRARIES=accept, which the MLflow runs"
        " then say"
    )
    accepted = work(pulled, ERV_OTHER_LIBRARIES="accept")
    assert accepted.returncode == 0, accepted.stderr
    assert (
        f"other libraries than those of {lock_of(OTHER)}: Python {PYTHON} instead of {OTHER}"
        in accepted.stderr
    )


def test_the_doctor_names_the_python_of_results(pulled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (finding,) = _found_by(python, load_environment(pulled))
    assert finding.state == "ok"
    recorded(pulled, OTHER)
    (finding,) = _found_by(python, load_environment(pulled))
    assert (finding.state, f"runtime.python in params.yaml says {OTHER}" in finding.detail) == ("fail", True)
    assert finding.remedy.startswith(f"run `make install PYTHON=python{OTHER}`")
    monkeypatch.setenv("ERV_OTHER_LIBRARIES", "accept")
    (finding,) = _found_by(python, load_environment(pulled))
    assert finding.state == "warn"
    (pulled / "params.yaml").write_text("- damaged")  # the check of the settings says so
    (finding,) = _found_by(python, load_environment(pulled))
    assert finding.state == "ok"


def test_stages_depend_on_the_libraries_of_the_python_of_results(tmp_path: Path) -> None:
    """Another Python is another library set: DVC runs all again, and records which it was."""
    from erv.pipeline import read_stages

    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    recorded(tmp_path, "3.13")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / ".dvc").mkdir()
    for stage in read_stages(tmp_path):
        locks = {path for path in stage.dependencies if path.endswith(".lock")}
        assert locks == {"requirements/results-3.13.lock"}, stage.name


@pytest.mark.parametrize("value", ["3.13", 3.13])
def test_a_parameter_given_as_a_number_is_a_python(value: object) -> None:
    """`dvc exp run -S runtime.python=3.13` writes a number."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["runtime"]["python"] = value
    assert parse_settings(raw).runtime.python == "3.13"
    raw["runtime"]["python"] = "3.14"
    with pytest.raises(SettingsError, match=r"runtime\.python: .*'3\.11', '3\.12' or '3\.13'"):
        parse_settings(raw)


def test_the_frame_of_all_stages_asks() -> None:
    """Every stage that depends on the lock runs in the frame that compares it."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for name, stage in stages.items():
        assert "requirements/results-${runtime.python}.lock" in stage["deps"], name
        assert "run_stage(" in (ROOT / f"stages/{name}.py").read_text(), name
