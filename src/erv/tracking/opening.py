"""Opens the MLflow run of a stage: its name, and tags that say which commit and which flow it belongs to."""

from __future__ import annotations

import getpass
import logging
import os
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path

from erv.environment import Environment
from erv.tracking.header import RunHeader
from erv.tracking.outbox import now_ms
from erv.tracking.run import StageRun

logger = logging.getLogger(__name__)

USER_TAG = "mlflow.user"  # the tag that MLflow itself shows as the user
COMMIT_TAG = "erv.git_commit"
DIRTY_TAG = "erv.git_dirty"
FLOW_TAG = "prefect.flow_run_id"
PARENT_VARIABLE = "ERV_PARENT_RUN_ID"
FLOW_VARIABLES = ("ERV_FLOW_RUN_ID", "PREFECT__FLOW_RUN_ID")


def open_run(
    environment: Environment,
    stage: str,
    address: str,
    tags: Mapping[str, str] | None = None,
    *,
    silent: bool = False,
) -> StageRun:
    """Opens the MLflow run of a stage.

    Args:
        environment: where MLflow is; without one, the returned run does nothing and one log line says so.
        stage: `grpo`.
        address: `grpo@erv`; the run's name.
        tags: additional tags.
        silent: track nothing; for all processes but the one that does.
    """
    all_tags = {"erv.stage": stage, "mlflow.source.name": f"stages/{stage}.py", "mlflow.source.type": "LOCAL"}
    all_tags.update(origin_tags(environment.workspace))
    parent = os.environ.get(PARENT_VARIABLE)
    flow = next((os.environ[name] for name in FLOW_VARIABLES if os.environ.get(name)), None)
    if parent:
        all_tags["mlflow.parentRunId"] = parent
    if flow:
        all_tags[FLOW_TAG] = flow
    all_tags.update({name: environment.mask(value) for name, value in (tags or {}).items()})

    import psutil

    header = RunHeader(
        key=uuid.uuid4().hex,
        address=address,
        started=now_ms(),
        tags=all_tags,
        pid=os.getpid(),
        created=psutil.Process().create_time(),
    )
    run = StageRun(environment, header)
    if silent:
        return run
    if environment.mlflow_uri is None:
        logger.info("no MLflow server is configured, nothing is tracked; `erv stack up` starts one")
    else:
        run.open()
    return run


def origin_tags(workspace: Path) -> dict[str, str]:
    """Who starts a run, at which commit, and whether the working tree differs from it beyond `dvc.lock`."""
    return {USER_TAG: _user(), **_git_tags(workspace)}


def _user() -> str:
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
    dirty = any(line[3:] != "dvc.lock" for line in changes.splitlines())
    commit = commit.strip()
    return {COMMIT_TAG: commit, "mlflow.source.git.commit": commit, DIRTY_TAG: str(dirty).lower()}
