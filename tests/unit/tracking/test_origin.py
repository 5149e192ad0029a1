"""Who started a run, at which commit, and whether the tree is that commit."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest

from erv.doctor import workspace_check
from erv.environment import Environment
from erv.lineage.origin import origin_values
from erv.tracking import origin
from erv.tracking.origin import COMMIT_TAG, DIRTY_TAG, origin_tags, user, who

PIPELINE = (
    "stages:\n  sft:\n    cmd: x\n    deps: [src/erv/files.py, stages/sft.py, data/sources/a.lock.json]\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository with one commit of `dvc.yaml`, `src/old.py` and `dvc.lock`."""
    (tmp_path / "src").mkdir()
    files = {"dvc.yaml": PIPELINE, "src/old.py": "", "dvc.lock": "", ".gitignore": "*.parquet\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    for arguments in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "all"]):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "dirty"),
    [
        ("src/new_reward.py", "true"),  # never added to git, but stages may import it
        ("src/a b/new reward.py", "true"),
        ("data/sources/b.lock.json", "true"),
        ("src/old.py", "true"),
        ("src/answers.parquet", "false"),  # ignored
        ("answers.csv", "false"),  # stages read nothing of the kind
        ("champion-folder/model.bin", "false"),
        ("src/.gitignore", "false"),  # DVC writes it
        ("dvc.lock", "false"),  # runs write it
        ("accepted.json", "false"),
    ],
)
def test_what_can_decide_results_counts(folder: Path, name: str, dirty: str) -> None:
    assert origin_tags(folder)[DIRTY_TAG] == "false"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("1")
    assert origin_tags(folder)[DIRTY_TAG] == dirty
    (found,) = workspace_check.git(Environment(folder))
    assert found.detail.endswith("1 file differs from it" if dirty == "true" else "clean"), (
        "as `erv doctor` says"
    )


def test_nothing_is_said_if_git_cant_say(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "src/old.py").write_text("1")
    (folder / ".git/index").write_bytes(b"damaged")
    tags = origin_tags(folder)
    assert len(tags[COMMIT_TAG]) == 40
    assert DIRTY_TAG not in tags


def test_people_who_share_a_login_are_told_apart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    login = f"{user()}@{platform.node()}"
    assert who(folder) == login
    subprocess.run(["git", "config", "user.name", ' Ann  "A"\nLee '], cwd=folder, check=True)
    assert who(folder) == f"Ann A Lee ({login})"
    assert who(folder.parent) == login
    with monkeypatch.context() as stage:  # of a queued experiment, which runs in a copy
        stage.setenv("DVC_ROOT", str(folder))
        assert who(folder.parent) == f"Ann A Lee ({login})"
    tags = origin_tags(folder)
    assert (tags["erv.started_by"], tags["mlflow.user"]) == (f"Ann A Lee ({login})", user())
    assert origin_values(tags)["started_by"] == f"Ann A Lee ({login})"
    assert origin_values({"mlflow.user": "ann"})["started_by"] == "ann", "of runs before erv.started_by"


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 4242")

    monkeypatch.setattr(origin.getpass, "getuser", nameless)
    assert origin.user().startswith("uid ")
