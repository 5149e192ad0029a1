"""Opens the MLflow run of a stage: its name, and tags that say which commit and which flow it belongs to."""

from __future__ import annotations

import logging
import os
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path

from erv.environment import Environment
from erv.tracking.description import USER_TAG, user
from erv.tracking.experiments import experiment_run, experiment_tags
from erv.tracking.header import RunHeader
from erv.tracking.outbox import now_ms
from erv.tracking.run import StageRun

logger = logging.getLogger(__name__)

PARENT_VARIABLE = "ERV_PARENT_RUN_ID"
FLOW_VARIABLES = ("ERV_FLOW_RUN_ID", "PREFECT__FLOW_RUN_ID")


def open_run(
    environment: Environment,
    stage: str,
    address: str,
    tags: Mapping[str, str] | None = None,
    *,
    name: str = "",
    silent: bool = False,
) -> StageRun:
    """Opens the MLflow run of a stage.

    Args:
        environment: where MLflow is; without one, the returned run does nothing and one log line says so.
        stage: `grpo`.
        address: `grpo@erv`.
        tags: additional tags.
        name: of the run in MLflow; the address by default.
        silent: track nothing; for all processes but the one that does.
    """
    all_tags = {"erv.stage": stage, "mlflow.source.name": f"stages/{stage}.py", "mlflow.source.type": "LOCAL"}
    git = git_tags(environment.workspace)
    all_tags.update({USER_TAG: user(), **git, **experiment_tags()})
    parent = os.environ.get(PARENT_VARIABLE) or (None if silent else experiment_run(environment, git))
    flow = next((os.environ[name] for name in FLOW_VARIABLES if os.environ.get(name)), None)
    if parent:
        all_tags["mlflow.parentRunId"] = parent
    if flow:
        all_tags["prefect.flow_run_id"] = flow
    all_tags.update({name: environment.mask(value) for name, value in (tags or {}).items()})

    import psutil

    header = RunHeader(
        key=uuid.uuid4().hex,
        address=address,
        started=now_ms(),
        tags=all_tags,
        pid=os.getpid(),
        created=psutil.Process().create_time(),
        name=name,
    )
    run = StageRun(environment, header)
    if silent:
        return run
    if environment.mlflow_uri is None:
        logger.info("no MLflow server is configured, nothing is tracked; `erv stack up` starts one")
    else:
        run.open()
    return run


def git_tags(workspace: Path) -> dict[str, str]:
    """The commit, and whether the working tree differs from it beyond `dvc.lock`."""

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
    return {"erv.git_commit": commit, "mlflow.source.git.commit": commit, "erv.git_dirty": str(dirty).lower()}
