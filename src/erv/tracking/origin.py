"""Where a run comes from: who started it, at which commit, with which changes that are not in it."""

from __future__ import annotations

import getpass
import os
import platform
import subprocess
from pathlib import Path

from erv.files import parse_yaml

USER_TAG = "mlflow.user"  # the tag that MLflow itself shows as the user: the login
STARTED_BY_TAG = "erv.started_by"  # from `who`
COMMIT_TAG = "erv.git_commit"
DIRTY_TAG = "erv.git_dirty"
FLOW_TAG = "prefect.flow_run_id"
_ORIGINAL = "DVC_ROOT"  # where DVC says which repository an experiment belongs to
_WRITTEN_BY_RUNS = ("dvc.lock", "accepted.json")


def origin_tags(workspace: Path) -> dict[str, str]:
    """Who starts a run, at which commit, and whether the tree differs from it.

    It differs if a file of the commit was changed, other than what runs write, or if there is a new file
    that git neither has nor ignores, below a top folder that stages read (`dvc.yaml` names what they read).
    The tag is missing if git can't say.
    """
    return {USER_TAG: user(), STARTED_BY_TAG: who(workspace), **_git_tags(workspace)}


def who(workspace: Path) -> str:
    """Who runs this process, and where: `Ann Lee (ann@box)`; `ann@box` if git knows no name.

    People who share a login, on one machine or as `root` in containers, differ in the name that git has.

    Args:
        workspace: the repository whose settings of git count, besides those of the user.
    """
    login, name = f"{user()}@{platform.node()}", _git_name(workspace)
    return f"{name} ({login})" if name else login


def machine_in(who: str) -> str:
    """The machine in what `who` says."""
    return who.rpartition("@")[2].removesuffix(")")


def _git_name(workspace: Path) -> str:
    """Git's `user.name` in one line; empty without one.

    DVC runs a queued experiment in a copy, which lacks the settings of its repository.
    """
    repository = Path(os.environ.get(_ORIGINAL) or workspace)
    name = (git(repository, "config", "user.name") or "").replace('"', "")
    return " ".join(name.split())


def user() -> str:
    """The login name; the user's number where it has none, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def committed_on(workspace: Path, path: Path) -> str | None:
    """The day on which a file was committed as it is now, `2026-11-29`; None if it wasn't.

    Args:
        workspace: root of the repository.
        path: of the file, relative to it.
    """
    if git(workspace, "status", "--porcelain", "--ignored", "--", str(path)) != "":
        return None
    return (git(workspace, "log", "-1", "--format=%cs", "--", str(path)) or "").strip() or None


def git(workspace: Path, *arguments: str, seconds: float = 20) -> str | None:
    """What git says; None if it fails, isn't there, or takes longer than so many seconds."""
    try:
        result = subprocess.run(
            ["git", "-C", str(workspace), *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",  # names of files need not be text
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout if result.returncode == 0 else None


def _git_tags(workspace: Path) -> dict[str, str]:
    commit = git(workspace, "rev-parse", "HEAD")
    if commit is None:
        return {}
    commit = commit.strip()
    tags = {COMMIT_TAG: commit, "mlflow.source.git.commit": commit}
    changed = uncommitted(workspace)
    if changed is not None:
        tags[DIRTY_TAG] = str(bool(changed)).lower()
    return tags


def uncommitted(workspace: Path) -> list[str] | None:
    """The files and new folders in which the tree differs from its commit, as `origin_tags` says.

    Returns:
        Their paths as they are, of renamed ones both; None if git can't say.
    """
    # NUL after each, without quotes: a name may have spaces and letters that git would write as numbers.
    changes = git(workspace, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=normal")
    if changes is None:
        return None
    read = _read_by_stages(workspace)
    return [line[3:] for line in changes.split("\0") if line and _counts(line, read)]


def _counts(line: str, read: set[str]) -> bool:
    """Whether a line of `git status` names a change that can decide results."""
    path = line[3:]
    if line.startswith("??"):  # DVC names its outputs in files `.gitignore`
        return path.partition("/")[0] in read and not path.endswith("/.gitignore")
    return path not in _WRITTEN_BY_RUNS


def _read_by_stages(workspace: Path) -> set[str]:
    """The files and folders at the top of the repository that hold what stages read."""
    try:
        stages = parse_yaml((workspace / "dvc.yaml").read_bytes())["stages"]
        return {str(path).partition("/")[0] for stage in stages.values() for path in stage.get("deps") or []}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()  # no pipeline here, or a damaged one, which then is a change by itself
