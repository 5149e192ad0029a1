"""A run of a commit that is checked out, and of none that isn't."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from erv.errors import StackError
from erv.tracking.checked_out import require_commit


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org")
    done = subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q", "-b", "main")
    for name in ("params.yaml", "dvc.lock", "code.py"):
        (tmp_path / name).write_text("first\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    git(tmp_path, "tag", "v1")
    (tmp_path / "code.py").write_text("second\n")
    git(tmp_path, "commit", "-qam", "second")
    return tmp_path


def test_the_commit_by_all_its_names(clone: Path) -> None:
    for ref in ("main", "HEAD", git(clone, "rev-parse", "HEAD"), git(clone, "rev-parse", "--short", "HEAD")):
        require_commit(clone, ref)


def test_parameters_and_results_may_differ(clone: Path) -> None:
    for name in ("params.yaml", "dvc.lock"):
        (clone / name).write_text("changed\n")
    require_commit(clone, "main")


def test_another_commit(clone: Path) -> None:
    first, second = git(clone, "rev-parse", "v1")[:12], git(clone, "rev-parse", "HEAD")[:12]
    with pytest.raises(StackError) as caught:
        require_commit(clone, "v1")
    assert str(caught.value) == (
        f"git ref 'v1' is commit {first}, but {clone} has {second} checked out; `git checkout v1` there, or"
        " deploy from a clone that has it"
    )


def test_no_commit(clone: Path) -> None:
    for ref in ("nosuch", "--help", "HEAD:code.py"):
        with pytest.raises(StackError, match="has no such commit, branch or tag"):
            require_commit(clone, ref)


def test_changed_code(clone: Path) -> None:
    (clone / "code.py").write_text("third\n")
    with pytest.raises(StackError, match=r"with uncommitted changes in code\.py; commit them"):
        require_commit(clone, "main")


def test_no_repository(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="has no such commit"):
        require_commit(tmp_path, "main")
