"""Every `dvc.lock` in git, experiments of DVC among them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from erv.results import kept
from erv.results.kept import of_git, of_workspace
from tests.support.result_locks import locked, text_of


def git(folder: Path, *words: str) -> str:
    author = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(["git", *author, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(folder: Path, text: str, message: str) -> str:
    (folder / "dvc.lock").write_text(text)
    git(folder, "add", "dvc.lock")
    git(folder, "commit", "-qm", message)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q", "-b", "main")
    return tmp_path


def test_locks_of_all_commits_branches_and_experiments_each_once(clone: Path) -> None:
    first = commit(clone, text_of(locked()), "first")
    second = commit(clone, text_of(locked(ingest__fold=2)), "second")
    commit(clone, text_of(locked()), "the first again")
    git(clone, "checkout", "-qb", "side", first)
    side = commit(clone, text_of(locked(ingest__fold=3)), "on a branch")
    git(clone, "checkout", "-q", "--detach")
    tried = commit(clone, text_of(locked(seed=7)), "an experiment")
    git(clone, "update-ref", f"refs/exps/{first[:2]}/{first[2:]}/quarter", tried)
    git(clone, "checkout", "-q", "main")
    remarks: list[str] = []
    found = list(of_git(clone, remarks))
    folds = {item.where: item.lock["ingest@mafw"]["params"]["params.yaml"] for item in found}
    assert remarks == []
    assert len(found) == 4
    assert folds["experiment quarter"]["seed"] == 7
    assert folds[f"commit {side[:8]}"]["ingest.fold"] == 3
    assert folds[f"commit {second[:8]}"]["ingest.fold"] == 2
    (experiment,) = [item.experiment for item in found if item.experiment]
    assert experiment == (first, "quarter")


def test_an_experiment_whose_result_was_committed_since_stays_one(clone: Path) -> None:
    first = commit(clone, text_of(locked()), "first")
    tried = commit(clone, text_of(locked(seed=7)), "an experiment")
    git(clone, "update-ref", f"refs/exps/{first[:2]}/{first[2:]}/quarter", tried)
    git(clone, "reset", "-q", "--hard", first)
    commit(clone, text_of(locked(seed=7)), "applied")
    found = list(of_git(clone, []))
    assert [item.experiment for item in found if item.experiment] == [(first, "quarter")]
    assert len(found) == 3


def test_a_damaged_lock_of_a_commit_is_named_and_left_out(clone: Path) -> None:
    commit(clone, text_of(locked()), "good")
    bad = commit(clone, "stages: [\n", "bad")
    remarks: list[str] = []
    assert len(list(of_git(clone, remarks))) == 1
    (remark,) = remarks
    assert remark.startswith(f"commit {bad[:8]}: its dvc.lock is left out")
    assert "/tmp" not in remark


@pytest.mark.parametrize(
    ("verb", "remark"),
    [
        ("log", "git can't list the commits of dvc.lock within 1 s, so results of other commits"),
        ("cat-file", "commit {commit}: git can't read its dvc.lock now; it is left out"),
    ],
)
def test_a_git_that_does_not_answer_is_told(
    clone: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    remark: str,
) -> None:
    made = commit(clone, text_of(locked()), "first")
    folder = tmp_path_factory.mktemp("bin")
    waits = "exec sleep 60" if verb == "log" else "exit 1"
    script = f'#!/bin/sh\ncase " $* " in *" {verb} "*) {waits};; esac\nexec {shutil.which("git")} "$@"\n'
    (folder / "git").write_text(script)
    (folder / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(kept, "_LOG_SECONDS", 1.0)
    remarks: list[str] = []
    assert list(of_git(clone, remarks)) == []
    (told,) = remarks
    assert told.startswith(remark.format(commit=made[:8]))


def test_a_damaged_repository_is_told_as_one(clone: Path) -> None:
    """It was told as a git that is too slow."""
    commit(clone, text_of(locked()), "first")
    made = commit(clone, text_of(locked(seed=7)), "second")
    (clone / ".git/objects" / made[:2] / made[2:]).unlink()
    remarks: list[str] = []
    assert list(of_git(clone, remarks)) == []
    (told,) = remarks
    assert told.startswith("git can't list the commits of dvc.lock, so results of other commits")
    assert told.endswith("`git fsck` says what is damaged")


def test_without_git_or_a_lock_there_is_nothing(tmp_path: Path) -> None:
    remarks: list[str] = []
    assert list(of_git(tmp_path, remarks)) == []
    git(tmp_path, "init", "-q")
    assert list(of_git(tmp_path, remarks)) == []
    assert remarks == []
    assert list(of_workspace(tmp_path)) == []
