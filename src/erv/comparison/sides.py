"""What a state of the pipeline was: its parameters, its lock entries, its commit, wherever it is recorded."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from erv.comparison.unrun import other_committed_files, other_data, other_files, other_parameters
from erv.environment import Environment, remedy_for
from erv.errors import RegistryError
from erv.lineage.artifacts import Artifacts
from erv.lineage.entries import Locked, entries_in
from erv.lineage.trace import Provenance
from erv.parameters import PARAMETERS, as_texts, changes, decides, parse
from erv.pipeline.graph import FILE as PIPELINE
from erv.pipeline.lock_file import NAME as LOCK
from erv.register.verdict import CHAMPION
from erv.register.versions import CHALLENGER, EXTERNAL_TAG, PUBLISH_RUN_TAG
from erv.settings import Settings
from erv.tracking import lock_entries
from erv.tracking.description import EXPERIMENT, KIND_TAG
from erv.tracking.experiments import BASELINE_TAG, NAME_TAG
from erv.tracking.lock_entries import PARENT_TAG
from erv.tracking.origin import COMMIT_TAG, DIRTY_TAG, git
from erv.tracking.rest import Run
from erv.tracking.run_ids import SHOWN, run_beginning

WORKSPACE = "."
_RUN = re.compile(r"[0-9a-f]{32}")
_NUMBER = re.compile(r"[1-9]\d{0,5}")  # a longer one may be the beginning of a commit
_EXPERIMENTS = "refs/exps"  # where DVC keeps its experiments, by the commit that each is based on
_EXPERIMENT = re.compile(rf"{_EXPERIMENTS}/(?P<first>[0-9a-f]{{2}})/(?P<rest>[0-9a-f]{{38}})/(?P<name>[^/]+)")


@dataclass(frozen=True)
class Side:
    """A state of the pipeline.

    Attributes:
        title: what it is, for people.
        parameters: of `params.yaml`, by dotted name, as texts.
        lock: its lock entries by stage.
        commit: of git, or None if it isn't recorded.
        dirty: whether the tree differed from the commit; None if it isn't recorded.
        remarks: sentences on what of it did not make its results.
    """

    title: str
    parameters: Mapping[str, str] = field(hash=False)
    lock: Locked = field(hash=False)
    commit: str | None = None
    dirty: bool | None = None
    remarks: tuple[str, ...] = ()


def find_side(target: str, environment: Environment, settings: Settings) -> Side:
    """Finds a state. What can't be a version is looked for in git before the registry is asked.

    Args:
        target: a model version (`models:/NAME/1`, `NAME@ALIAS`, `3`, `champion`), the id of an MLflow run or
            its first 8 digits, an experiment of DVC, a git revision, or `.` for the workspace as it is.
        environment: where registry and runs are.
        settings: for the model's name.

    Raises:
        RegistryError: nothing of that name is known, or what it was isn't recorded.
    """
    if target == WORKSPACE:
        return _workspace(environment.workspace)
    if _RUN.fullmatch(target):
        return _of_run(target, environment)
    if not _is_version(target, settings):
        commit = _commit(_experiment(target, environment.workspace) or target, environment.workspace)
        if commit is not None:
            title = f"commit {commit[:8]}" if commit.startswith(target) else f"{target} ({commit[:8]})"
            return _of_commit(title, commit, environment.workspace)
    if environment.mlflow_uri is not None:
        if (run := run_beginning(environment, target)) is not None:
            return _of_run(run.info.run_id, environment)
        version = Provenance(environment, settings).version(target)
        if version is not None:
            if EXTERNAL_TAG in version.tags:
                raise RegistryError(
                    f"{target}: is external, so there is no record of what made it to compare"
                )
            run_id = version.tags.get(PUBLISH_RUN_TAG)
            if run_id is None:
                raise RegistryError(f"{target}: was not published by erv, so what made it isn't recorded")
            title = f"{version.name} version {version.version}"
            return _of_run(run_id, environment, title)
    elif _is_version(target, settings):
        remedy = remedy_for("MLflow", environment.workspace)
        raise RegistryError(f"{target!r} is a version, but no MLflow server is named; {remedy}")
    raise RegistryError(
        f"{target!r} is no model version, run id, experiment of DVC or git revision known here;"
        " `.` is the workspace"
    )


def _is_version(target: str, settings: Settings) -> bool:
    """Whether a name is that of a version, whatever git knows."""
    model = settings.register_.model_name
    return bool(
        target in (CHAMPION, CHALLENGER)
        or _NUMBER.fullmatch(target)
        or target.startswith(("models:/", f"{model}/", f"{model}@"))
    )


def _workspace(workspace: Path) -> Side:
    side = _of_files("the workspace", workspace, None, None)
    return replace(side, remarks=(*side.remarks, *other_files(side.lock, workspace)))


def _of_run(run_id: str, environment: Environment, title: str | None = None) -> Side:
    if not environment.mlflow_uri:
        remedy = remedy_for("MLflow", environment.workspace)
        raise RegistryError(f"{run_id} is the id of a run, but no MLflow server is named; {remedy}")
    run = lock_entries.server_of(environment).find_run(run_id)
    if run is None:
        raise RegistryError(f"{run_id}: no run of this id on {environment.mask(environment.mlflow_uri)}")
    parent = run.data.tags.get(PARENT_TAG)
    artifacts = Artifacts(environment)
    with tempfile.TemporaryDirectory() as folder:
        kept = artifacts.pipeline_of(run_id, folder) or artifacts.pipeline_of(parent, folder)
        if kept is None and not artifacts.unread and NAME_TAG in run.data.tags:
            return _of_experiment(run, environment)
        if kept is None:
            raise RegistryError(
                f"{run_id}: {artifacts.unread or 'it keeps no dvc.lock; give the run of a flow'}"
            )
        side = _of_files(title or _named(run), kept, *_origin(run))
    return side if side.dirty is not False else _with_its_files(side, environment.workspace)


def _of_experiment(run: Run, environment: Environment) -> Side:
    """The state of a run of an experiment of DVC, or of a stage in one, from this clone's git."""
    name, baseline = run.data.tags[NAME_TAG], run.data.tags.get(BASELINE_TAG, "")
    ref = f"{_EXPERIMENTS}/{baseline[:2]}/{baseline[2:]}/{name}"
    commit = _commit(ref, environment.workspace)
    if commit is None:
        raise RegistryError(
            f"{run.info.run_id}: the experiment {name!r} is not in this clone; get it with `dvc exp pull`"
        )
    side = _of_commit(_named(run), commit, environment.workspace)
    whole = run if run.data.tags.get(KIND_TAG) == EXPERIMENT else _parent(run, environment)
    here = {key: environment.mask(text) for key, text in side.parameters.items()}
    known = whole.data.params if whole is not None else {}
    if other := [change for change in changes(known, here) if change.name in known and decides(change.name)]:
        raise RegistryError(
            f"{run.info.run_id}: the experiment {name!r} was run again with other parameters"
            f" ({other[0].text()}), and git has the last one only"
        )
    return side


def _parent(run: Run, environment: Environment) -> Run | None:
    parent = run.data.tags.get(PARENT_TAG)
    return lock_entries.server_of(environment).find_run(parent) if parent else None


def _named(run: Run) -> str:
    return f"run {run.info.run_name} ({run.info.run_id[:SHOWN]})"


def _origin(run: Run) -> tuple[str | None, bool | None]:
    tags = run.data.tags
    return tags.get(COMMIT_TAG), tags[DIRTY_TAG] == "true" if DIRTY_TAG in tags else None


def _of_files(title: str, folder: Path, commit: str | None, dirty: bool | None) -> Side:
    path = folder / PARAMETERS
    parameters = as_texts(parse(path.read_bytes())) if path.is_file() else {}
    lock = entries_in(folder)
    if not lock:
        raise RegistryError(f"{title}: has no {LOCK}, so nothing ran there; run `erv run`")
    remarks = (*other_parameters(lock, parameters), *other_data(lock))
    return Side(title, parameters, lock, commit, dirty, remarks)


def _experiment(name: str, workspace: Path) -> str | None:
    """The revision of an experiment of DVC; None if there is none of this name.

    Raises:
        RegistryError: several have it.
    """
    listed = git(workspace, "for-each-ref", "--format=%(objectname) %(refname)", _EXPERIMENTS) or ""
    found = {}
    for line in listed.splitlines():
        revision, _, ref = line.partition(" ")
        if (parts := _EXPERIMENT.fullmatch(ref)) and parts["name"] == name:
            found[revision] = parts["first"] + parts["rest"]
    if len(found) > 1:
        each = ", ".join(f"{revision[:8]} (of {baseline[:8]})" for revision, baseline in found.items())
        raise RegistryError(
            f"{name}: {len(found)} experiments on different commits have this name; say which by its own"
            f" revision: {each}"
        )
    return next(iter(found), None)


def _commit(revision: str, workspace: Path) -> str | None:
    """The commit that git knows by a name; None if there is none."""
    name = f"{revision}^{{commit}}"
    return (
        git(workspace, "rev-parse", "--verify", "--quiet", "--end-of-options", name) or ""
    ).strip() or None


def _of_commit(title: str, commit: str, workspace: Path) -> Side:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in (LOCK, PARAMETERS, PIPELINE):
            content = git(workspace, "show", f"{commit}:./{file}")
            if content is not None:
                (folder / file).write_text(content, encoding="utf-8")
        return _with_its_files(_of_files(title, folder, commit, False), workspace)


def _with_its_files(side: Side, workspace: Path) -> Side:
    """A state with a remark on files of its commit that its results weren't made with, if git has it here."""
    if side.commit is None or _commit(side.commit, workspace) is None:
        return side
    other = other_committed_files(side.lock, workspace, side.commit)
    return replace(side, remarks=(*side.remarks, *other))
