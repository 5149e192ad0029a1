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


def _git_tags(workspace: Path) -> dict[str, str]:
    def git(*arguments: str) -> str | None:
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

    commit = git("rev-parse", "HEAD")
    if commit is None:
        return {}
    changes = git("status", "--porcelain", "--untracked-files=no") or ""
    dirty = any(line[3:] not in _WRITTEN_BY_RUNS for line in changes.splitlines())
    commit = commit.strip()
    return {COMMIT_TAG: commit, "mlflow.source.git.commit": commit, DIRTY_TAG: str(dirty).lower()}
