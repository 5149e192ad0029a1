"""Runs with a profile or overrides: what becomes of params.yaml and dvc.lock, and how one goes back."""

from __future__ import annotations

import subprocess

import pytest

from erv.environment import Environment
from erv.pipeline import read_lock_entries
from tests.integration.prefect_api import ask
from tests.integration.scratch import Scratch

pytestmark = pytest.mark.integration


def git(scratch: Scratch, *words: str) -> str:
    who = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org")
    command = ["git", *who, *words]
    return subprocess.run(
        command, cwd=scratch.folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture(scope="module")
def scratch(stack: Environment, tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    """A pipeline that has run with seed 101, all of it committed."""
    scratch = Scratch(tmp_path_factory.mktemp("overrides"), stack)
    scratch.erv("run")
    git(scratch, "add", "params.yaml", "dvc.yaml", "dvc.lock", "work.py", "control")
    git(scratch, "commit", "-qam", "as it was")
    return scratch


def flow_runs(scratch: Scratch) -> int:
    return int(ask(scratch.environment, "/flow_runs/count", {}))


def test_overrides_stay_with_their_results_and_git_goes_back(scratch: Scratch) -> None:
    done = scratch.erv("run", "--set", "seed=7", "--set", "grpo.beta=0.1")
    assert "4 stages: 4 ran" in done.stdout
    said = done.stdout + done.stderr
    assert "params.yaml: seed 101 → 7" in said
    assert "params.yaml differs from its commit: seed 101 → 7; grpo.beta 0.02 → 0.1" in said
    assert (scratch.folder / "joined.txt").read_text() == "join 0 7\n"
    assert "up to date" in scratch.python("-m", "dvc", "status").stdout, "dvc.lock and params.yaml agree"
    lock = read_lock_entries(scratch.folder / "dvc.lock")
    assert lock["join"]["params"] == {"params.yaml": {"seed": 7}}
    assert set(git(scratch, "diff", "--name-only").split()) == {"params.yaml", "dvc.lock"}
    tags = scratch.runs()["train"][0].data.tags
    assert (tags["erv.overrides"], tags["erv.git_dirty"]) == ("seed=7 grpo.beta=0.1", "true")
    assert scratch.runs()["train"][0].data.params["seed"] == "7"

    git(scratch, "checkout", "-q", "params.yaml", "dvc.lock")
    scratch.python("-m", "dvc", "checkout")
    assert "up to date" in scratch.python("-m", "dvc", "status").stdout
    done = scratch.erv("run")
    assert "4 stages: 4 unchanged" in done.stdout
    assert "differs from its commit" not in done.stdout + done.stderr
    assert "erv.overrides" not in scratch.runs()["train"][0].data.tags


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--set", "grpo.betta=0.1"), "there is no parameter grpo.betta; did you mean grpo.beta?"),
        (("--set", "grpo.beta=-1"), "grpo.beta: Input should be greater than or equal to 0, found -1"),
        (("--profile", "tinny"), "no profile 'tinny', expected one of demo"),
    ],
)
def test_a_wrong_one_is_refused_before_anything_starts(
    scratch: Scratch, words: tuple[str, ...], said: str
) -> None:
    before, runs = (scratch.folder / "params.yaml").read_bytes(), flow_runs(scratch)
    refused = scratch.erv("run", *words, check=False)
    assert refused.returncode == 2
    (sentence,) = refused.stderr.splitlines()
    assert said in sentence
    assert (scratch.folder / "params.yaml").read_bytes() == before
    assert flow_runs(scratch) == runs


def test_parameters_are_put_back_if_no_stage_began(scratch: Scratch) -> None:
    before = (scratch.folder / "params.yaml").read_bytes()
    refused = scratch.erv("run", "--profile", "tiny", "--set", "seed=9", "nosuch", check=False)
    assert refused.returncode == 2
    assert "no stage 'nosuch' in dvc.yaml" in refused.stderr
    assert "no stage began, so params.yaml is as before" in refused.stderr + refused.stdout
    assert (scratch.folder / "params.yaml").read_bytes() == before


def test_they_go_with_a_run_alone(scratch: Scratch) -> None:
    for words in (
        ("--dry", "--set", "seed=1"),
        ("--deploy", "--set", "seed=1"),
        ("--worker", "--profile", "tiny"),
    ):
        assert scratch.erv("run", *words, check=False).returncode == 2
