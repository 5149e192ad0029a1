"""The key of a result: what `erv figures --between` and links to its page take."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from erv.environment import Environment
from erv.results.gather import gather
from erv.results.published import published
from erv.results.result import Result
from tests.support.result_locks import locked, text_of


def git(folder: Path, *words: str) -> None:
    author = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *author, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    (tmp_path / "dvc.lock").write_text(text_of(locked()))
    return tmp_path


def keys(clone: Path) -> dict[str, str]:
    found = gather(Environment(clone), foreign=False).results
    return {f"{item.policy} {item.record['found in']}": item.key for item in found}


def test_a_commit_changes_no_key(clone: Path) -> None:
    before = keys(clone)
    git(clone, "add", "dvc.lock")
    git(clone, "commit", "-qm", "results")
    after = keys(clone)
    assert before.keys().isdisjoint(after)  # they are found in another place, too
    assert list(before.values()) == list(after.values())
    git(clone, "rm", "-q", "--cached", "dvc.lock")
    (clone / "dvc.lock").unlink()
    assert list(keys(clone).values()) == list(before.values())


def test_each_result_has_a_key_of_its_own(clone: Path) -> None:
    git(clone, "add", "dvc.lock")
    git(clone, "commit", "-qm", "results")
    (clone / "dvc.lock").write_text(text_of(locked(seed=7)))
    assert len(set(keys(clone).values())) == len(keys(clone)) == 4
    assert len({item.key for item in published()}) == len(published())


def test_a_result_whose_figures_are_gone_is_still_that_of_its_data_sets(clone: Path) -> None:
    """Else it would be another result, with another key, as long as MLflow is away."""
    assert {item.dataset for item in gather(Environment(clone), foreign=False).results} == {"mafw"}
    roles = {"train": ["mafw"], "test": ["mafw", "dfew"], "cold_start": "reasoning"}
    (clone / "dvc.lock").write_text(text_of(locked(roles=roles)))
    found = gather(Environment(clone), foreign=False).only(policies=["erv"]).results
    assert [item.dataset for item in found] == ["dfew", "mafw", "overall"]
    assert all(item.figures == {} for item in found)


def test_the_record_decides_no_key() -> None:
    def result(**record: str) -> Result:
        return Result("erv", "mafw", {}, record, {}, identity="the entry")

    assert result(date="2026-11-01 10:00 UTC").key == result(**{"MLflow run": "unknown"}).key
