"""The coordinator's side: what it sends for a stage, and what it does with the answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from erv import pipeline
from erv.environment import Environment, child_environment
from erv.pipeline import PipelineError, PipelineStage, StageFailedError, StageResult
from erv.pipeline.lock_file import KEPT
from erv.pipeline.lock_file import NAME as LOCK
from erv.remote.board import Board
from erv.remote.commit import changes_to_carry, commit_of, patch_id, send_commit
from erv.remote.key import inputs_of_entry, present_inputs, stage_key
from erv.remote.request import Request
from erv.storage.store import open_store
from erv.tracking import records
from erv.tracking.header import RunHeader
from erv.tracking.origin import who

_PARAMETERS = "params.yaml"


def restorable_here(stage: PipelineStage, environment: Environment) -> bool:
    """Whether DVC has the stage's result, here or in its remote, so that nobody needs to run it."""
    changes = pipeline.read_changes([stage], environment.workspace)
    change = changes[stage.name]
    if not change or change.ran_before or (not change.inputs and change.in_cache):
        return True
    return stage.name in pipeline.restorable_from_remote([stage], changes, environment.workspace)


def prepare(
    environment: Environment,
    stage: PipelineStage,
    upstream: Sequence[str],
    *,
    carry: bool,
    forced_by: str | None = None,
    variables: Mapping[str, str] | None = None,
    on_line: Callable[[str], None],
    cancelled: Callable[[], bool],
) -> tuple[Board, Request]:
    """Stores what a worker needs: the commit, and the outputs that the stage reads.

    Args:
        environment: of this clone.
        stage: what it depends on is up to date here.
        upstream: the stages whose outputs it reads, from `erv.remote.placement.read_from`.
        carry: `machine.carry_changes`.
        forced_by: the flow run that wants it to run in any case; None if a known result will do.
        variables: for the stage.
        on_line: takes lines: DVC's output, and that the commit is sent.
        cancelled: polled several times a second.

    Returns:
        The stage's board, and the request to write there.

    Raises:
        CommitError: there are uncommitted changes, or git fails.
        PipelineError: an input is missing or can't be stored.
        StorageError: the store can't be reached.
    """
    workspace = environment.workspace
    commit = commit_of(workspace)
    patch = changes_to_carry(workspace, carry=carry)
    if upstream:
        pipeline.push_outputs(
            upstream,
            on_line=on_line,
            cancelled=cancelled,
            environment=child_environment(environment),
            workspace=workspace,
        )
    store = open_store(environment)
    send_commit(store, environment.dvc_bucket, workspace, commit, say=on_line)
    inputs = present_inputs(stage.name, workspace)
    pipeline.repair_lock(workspace)  # keeps a copy that no DVC is just writing
    files = {_PARAMETERS: (workspace / _PARAMETERS).read_text(encoding="utf-8")}
    if (workspace / KEPT).is_file():
        files[LOCK] = (workspace / KEPT).read_text(encoding="utf-8")
    request = Request(
        stage=stage.name,
        upstream=tuple(upstream),
        commit=commit,
        inputs=inputs,
        files=files,
        bucket=environment.dvc_bucket,
        experiment=environment.mlflow_experiment,
        asked_by=who(workspace),
        patch=patch,
        patch_id=None if patch is None else patch_id(patch),
        force=forced_by is not None,
        variables=dict(variables or {}),
    )
    return Board(store, environment.dvc_bucket, stage_key(inputs, forced_by)), request


def is_usable(result: Mapping[str, Any], request: Request, environment: Environment) -> bool:
    """Whether a result that was there before is one that counts: an entry for these inputs, all of it stored.

    Raises:
        PipelineError: the remote can't be asked.
    """
    entry = result.get("entry")
    if not isinstance(entry, dict) or inputs_of_entry(entry) != request.inputs:
        return False
    return not pipeline.missing_from_remote(entry, environment.workspace)


def take(
    environment: Environment,
    request: Request,
    result: Mapping[str, Any],
    *,
    on_line: Callable[[str], None],
    cancelled: Callable[[], bool],
) -> StageResult:
    """Makes a worker's result this clone's: checks it, writes the entry into `dvc.lock`, fetches the outputs.

    Raises:
        StageFailedError: the stage failed there, or what was sent doesn't count here.
        PipelineError: the outputs can't be fetched.
    """
    name, worker = request.stage, result.get("worker", "an unknown worker")
    _note_run(environment, name, result.get("record"))
    if "failed" in result:
        reason = str(result["failed"]).removeprefix(f"{name}: ")
        raise StageFailedError(f"{name}: {reason} (it ran on {worker})")
    entry = result.get("entry")
    if not isinstance(entry, dict) or inputs_of_entry(entry) != request.inputs:
        raise StageFailedError(
            f"{name}: {worker} sent the result of other inputs; run the same command again"
        )
    if missing := pipeline.missing_from_remote(entry, environment.workspace):
        raise StageFailedError(
            f"{name}: {worker} says that it is done, but {', '.join(missing)} is not in DVC's remote"
            f" s3://{request.bucket}; run the same command again"
        )
    if present_inputs(name, environment.workspace) != request.inputs:
        raise StageFailedError(
            f"{name}: what it reads was changed here while it ran on {worker}; its result is kept: undo the"
            " change and run the same command again, or run it again as it is now"
        )
    pipeline.take_entry(
        name,
        entry,
        on_line=on_line,
        cancelled=cancelled,
        environment=child_environment(environment),
        workspace=environment.workspace,
    )
    return StageResult(name, result.get("outcome", "ran"), float(result.get("seconds", 0.0)))


def as_restored(done: StageResult) -> StageResult:
    """The same for a result that was there already."""
    return dataclasses.replace(done, outcome="restored")


def _note_run(environment: Environment, name: str, record: object) -> None:
    """Keeps which run of MLflow the stage has, as if it had run here."""
    if not isinstance(record, dict) or not isinstance(record.get("run_id"), str):
        return
    try:
        header = RunHeader(
            key=str(record["key"]), address=name, started=int(record["started"]), run_id=record["run_id"]
        )
    except (LookupError, TypeError, ValueError) as error:
        raise PipelineError(f"{name}: the worker sent a damaged record of its MLflow run") from error
    records.write(environment, header)
