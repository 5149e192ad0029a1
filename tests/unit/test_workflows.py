"""The workflows for GitHub: what they run exists here. A test of the pipeline runs their own lines."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from erv.cli import command
from erv.settings.profile import names
from tests.conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def steps_of(path: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


def lines_of(path: Path) -> list[str]:
    return [line.strip() for step in steps_of(path) for line in step.get("run", "").splitlines()]


def test_there_are_some() -> None:
    assert [path.stem for path in WORKFLOWS] == ["checks", "slow-tests", "tiny-run"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_what_they_call_exists(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for line in lines_of(path):
        words = shlex.split(line.partition("|")[0]) if line.startswith(("make ", "erv ", "bash ")) else [""]
        if words[0] == "make":
            assert words[1] in targets, line
        elif words[0] == "erv":
            found = command.get_command(click.Context(command), words[1])
            assert found is not None, line
            options = {name for option in found.params for name in option.opts}
            assert {word for word in words[2:] if word.startswith("--")} <= options, line
        elif words[0] == "bash":
            assert (ROOT / words[1]).is_file(), line


def test_every_room_of_tests_is_run_by_one() -> None:
    """What nobody starts by hand is not tested: `make test-distributed` and `test-versions` were in none."""
    rooms = set(re.findall(r"^(test[a-z-]*):", (ROOT / "Makefile").read_text(), re.M))
    called = {Path(word) for path in WORKFLOWS for line in lines_of(path) for word in line.split()}
    lines = [line for path in WORKFLOWS for line in lines_of(path)]
    lines += (ROOT / ".ci/run").read_text().splitlines() if Path(".ci/run") in called else []
    run = {name for line in lines for name in re.findall(r"\bmake ([a-z-]+)", line)}
    assert rooms - {"test-fast"} <= run, "test-fast is a part of test"


def test_the_long_ones_run_at_night_and_by_hand() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/slow-tests.yml").read_text(encoding="utf-8"))
    assert set(workflow[True]) == {"schedule", "workflow_dispatch"}  # YAML reads `on` as a truth value


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_they_end_and_may_do_little(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())
    assert workflow["permissions"]["contents"] == "read"
    # What a pull request names itself must not become part of a shell's line.
    assert not any("github.event.pull_request.title" in line or "head_ref" in line for line in lines_of(path))


def test_the_comment_names_the_commit_of_the_pull_request() -> None:
    """HEAD is the trial merge that GitHub makes of it, which nobody has."""
    (step,) = [s for s in steps_of(ROOT / ".github/workflows/tiny-run.yml") if s.get("name") == "Metrics"]
    assert step["env"] == {"COMMIT": "${{ github.event.pull_request.head.sha }}"}
    assert "${COMMIT:0:8}" in step["run"]
    assert "HEAD" not in step["run"]


def test_the_profile_of_the_run_exists() -> None:
    used = re.findall(r"erv params use (\S+)", (ROOT / ".github/workflows/tiny-run.yml").read_text())
    assert used
    assert set(used) <= set(names())
