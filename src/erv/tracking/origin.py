"""Where a run comes from: who started it, at which commit, with which changes beside it."""

from __future__ import annotations

import getpass
import os
import platform
import subprocess
from pathlib import Path

USER_TAG = "mlflow.user"  # the tag that MLflow itself shows as the user
COMMIT_TAG = "erv.git_commit"
DIRTY_TAG = "erv.git_dirty"
FLOW_TAG = "prefect.flow_run_id"
_WRITTEN_BY_RUNS = ("dvc.lock", "accepted.json")


def origin_tags(workspace: Path) -> dict[str, str]:
    """Who starts a run, at which commit, and whether the tree differs from it beyond what runs write."""
    return {USER_TAG: user(), **_git_tags(workspace)}


def who() -> str:
    """Who runs this process, and where: `ann@box`."""
    return f"{user()}@{platform.node()}"


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


def git(workspace: Path, *arguments: str) -> str | None:
    """What git says; None if it fails or isn't there."""
    try:
        result = subprocess.run(
            ["git", "-C", str(workspace), *arguments],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout if result.returncode == 0 else None


def _git_tags(workspace: Path) -> dict[str, str]:
    commit = git(workspace, "rev-parse", "HEAD")
    if commit is None:
        return {}
    changes = git(workspace, "status", "--porcelain", "--untracked-files=no") or ""
    dirty = any(line[3:] not in _WRITTEN_BY_RUNS for line in changes.splitlines())
    commit = commit.strip()
    return {COMMIT_TAG: commit, "mlflow.source.git.commit": commit, DIRTY_TAG: str(dirty).lower()}
