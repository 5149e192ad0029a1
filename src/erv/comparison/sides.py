"""What a state of the pipeline was: its parameters, its lock entries, its commit, wherever it is recorded."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from erv.environment import Environment
from erv.errors import RegistryError
from erv.lineage.artifacts import Artifacts
from erv.lineage.entries import Locked, entries_in
from erv.lineage.trace import Provenance
from erv.parameters import PARAMETERS, as_texts, parse
from erv.pipeline.lock_file import NAME as LOCK
from erv.register.versions import PUBLISH_RUN_TAG
from erv.settings import Settings
from erv.tracking import lock_entries
from erv.tracking.origin import COMMIT_TAG, DIRTY_TAG
from erv.tracking.rest import Run

WORKSPACE = "."
_RUN = re.compile(r"[0-9a-f]{32}")
_EXPERIMENTS = "refs/exps"  # where DVC keeps its experiments


@dataclass(frozen=True)
class Side:
    """A state of the pipeline.

    Attributes:
        title: what it is, for people.
        parameters: of `params.yaml`, by dotted name, as texts.
        lock: its lock entries by stage.
        commit: of git, or None if it isn't recorded.
        dirty: whether the tree differed from the commit; None if it isn't recorded.
    """

    title: str
    parameters: Mapping[str, str] = field(hash=False)
    lock: Locked = field(hash=False)
    commit: str | None = None
    dirty: bool | None = None


def find_side(target: str, environment: Environment, settings: Settings) -> Side:
    """Finds a state.

    Args:
        target: a model version (`models:/NAME/1`, `NAME@ALIAS`, `3`, `champion`), the id of an MLflow run, an
            experiment of DVC, a git revision, or `.` for the workspace as it is.
        environment: where registry and runs are.
        settings: for the model's name.

    Raises:
        RegistryError: nothing of that name is known, or what it was isn't recorded.
    """
    if target == WORKSPACE:
        return _of_files("the workspace", environment.workspace, None, None)
    if _RUN.fullmatch(target):
        return _of_run(target, environment)
    if environment.mlflow_uri is not None:
        version = Provenance(environment, settings).version(target)
        if version is not None:
            run_id = version.tags.get(PUBLISH_RUN_TAG)
            if run_id is None:
                raise RegistryError(f"{target}: was not published by erv, so what made it isn't recorded")
            title = f"{version.name} version {version.version}"
            return _of_run(run_id, environment, title)
    revision = _experiment(target, environment.workspace) or target
    return _of_revision(target, revision, environment.workspace)


def _of_run(run_id: str, environment: Environment, title: str | None = None) -> Side:
    run = lock_entries.server_of(environment).find_run(run_id) if environment.mlflow_uri else None
    if run is None:
        raise RegistryError(f"{run_id}: no run of this id on {environment.mlflow_uri or 'any MLflow server'}")
    parent = run.data.tags.get("mlflow.parentRunId")
    artifacts = Artifacts(environment)
    with tempfile.TemporaryDirectory() as folder:
        kept = artifacts.pipeline_of(run_id, folder) or artifacts.pipeline_of(parent, folder)
        if kept is None:
            raise RegistryError(
                f"{run_id}: {artifacts.unread or 'it keeps no dvc.lock; give the run of a flow'}"
            )
        return _of_files(title or _named(run), kept, *_origin(run))


def _named(run: Run) -> str:
    return f"run {run.info.run_name} ({run.info.run_id[:8]})"


def _origin(run: Run) -> tuple[str | None, bool | None]:
    tags = run.data.tags
    return tags.get(COMMIT_TAG), tags[DIRTY_TAG] == "true" if DIRTY_TAG in tags else None


def _of_files(title: str, folder: Path, commit: str | None, dirty: bool | None) -> Side:
    path = folder / PARAMETERS
    parameters = as_texts(parse(path.read_bytes())) if path.is_file() else {}
    lock = entries_in(folder)
    if not lock:
        raise RegistryError(f"{title}: has no {LOCK}, so nothing ran there; run `erv run`")
    return Side(title, parameters, lock, commit, dirty)


def _experiment(name: str, workspace: Path) -> str | None:
    """The revision of an experiment of DVC; None if there is none of this name.

    Raises:
        RegistryError: several have it.
    """
    listed = _git(workspace, "for-each-ref", "--format=%(objectname) %(refname)", _EXPERIMENTS) or ""
    found = {}
    for line in listed.splitlines():
        revision, _, ref = line.partition(" ")
        if ref.rpartition("/")[2] == name and not ref.startswith(f"{_EXPERIMENTS}/exec/"):
            found[ref] = revision
    if len(found) > 1:
        raise RegistryError(f"{name}: {len(found)} experiments have this name; give a revision: {found}")
    return next(iter(found.values()), None)


def _of_revision(target: str, revision: str, workspace: Path) -> Side:
    commit = _git(workspace, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if commit is None:
        raise RegistryError(
            f"{target!r} is no model version, run id, experiment of DVC or git revision known here;"
            " `.` is the workspace"
        )
    commit = commit.strip()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in (LOCK, PARAMETERS):
            content = _git(workspace, "show", f"{commit}:{file}")
            if content is not None:
                (folder / file).write_text(content, encoding="utf-8")
        title = f"commit {commit[:8]}" if commit.startswith(target) else f"{target} ({commit[:8]})"
        return _of_files(title, folder, commit, False)


def _git(workspace: Path, *arguments: str) -> str | None:
    """What git prints; None if it refuses."""
    command = ["git", "-C", str(workspace), *arguments]
    result = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, check=False)
    return result.stdout if result.returncode == 0 else None
