"""Connects MLflow runs with `dvc.lock`: a run is tagged with the hash of its stage's lock entry.

A stage opens its MLflow run before its outputs are known. Once DVC has written the lock entry (command,
dependencies, parameters, outputs), `reconcile` tags the run with the entry's hash. A cached stage runs
nothing: its earlier run is found by that tag, and `link` names it in the flow's parent run.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erv.environment import Environment, hand_over_token
from erv.files import sha256_of_text
from erv.pipeline import ACCEPTED, Acceptance, PipelineError, behind, read_accepted
from erv.tracking import records
from erv.tracking.names import flatten
from erv.tracking.rest import Refused, Rest, Run
from erv.tracking.run import StageRun

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

ENTRY_TAG = "erv.lock_entry"
OUTPUTS_TAG = "erv.outputs"
PARENT_TAG = "mlflow.parentRunId"  # as MLflow names the run that contains another
RUN_TAG_PREFIX = "erv.run."
LOCK_ARTIFACT_FOLDER = "pipeline"
PIPELINE_FILES = ("dvc.lock", "dvc.yaml", "params.yaml", ACCEPTED)
SOURCES = Path("data/sources")
TAG_LIMIT = 4900  # longest tag value that every MLflow store accepts


def entry_hash(entry: Mapping[str, Any]) -> str:
    """The identity of a lock entry: SHA-256 over command, hashes of dependencies and outputs, and parameters.

    Sizes and file counts are left out, because the hashes determine them.
    """
    content = {
        "cmd": entry.get("cmd"),
        "deps": _hashes(entry, "deps"),
        "params": entry.get("params", {}),
        "outs": _hashes(entry, "outs"),
    }
    return sha256_of_text(json.dumps(content, sort_keys=True))


def _hashes(entry: Mapping[str, Any], kind: str) -> dict[str, str | None]:
    return {item["path"]: item.get("md5") for item in entry.get(kind) or []}


def reconcile(
    environment: Environment, lock: Mapping[str, Mapping[str, Any]], names: Iterable[str] | None = None
) -> None:
    """Delivers what an outage held back, then tags the newest run of each stage with its lock entry.

    A run is tagged once, and only if it finished and its parameters match the entry: an entry restored from
    the cache belongs to an earlier run. Safe to repeat. An outage of MLflow is only reported.

    Args:
        environment: where MLflow is; nothing happens without one.
        lock: from `erv.pipeline.read_lock_entries`.
        names: stages to look at; all of `lock` by default.
    """
    if environment.mlflow_uri is None:
        return
    from erv.tracking.delivery import Outage, deliver_spool

    server = server_of(environment)
    try:
        deliver_spool(environment)
        for name in sorted(names if names is not None else lock):
            record = records.read(environment, name)
            if name in lock and record is not None and record.get("run_id"):
                _tag(server, str(record["run_id"]), lock[name])
    except (Outage, OSError) as error:
        logger.warning(
            "runs are not linked to dvc.lock yet, the next flow will do it: %s", _first_line(error)
        )


def _tag(server: Rest, run_id: str, entry: Mapping[str, Any]) -> None:
    try:
        run = server.get_run(run_id)
    except Refused as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":  # a run on another server, or a deleted one
            return
        raise
    if run.info.status != "FINISHED" or ENTRY_TAG in run.data.tags or not _same_parameters(run, entry):
        return
    outputs = " ".join(f"{path}={md5}" for path, md5 in sorted(_hashes(entry, "outs").items()))
    tags = {ENTRY_TAG: entry_hash(entry), OUTPUTS_TAG: outputs[:TAG_LIMIT]}
    server.log_batch(run_id, tags=tags)


def _same_parameters(run: Run, entry: Mapping[str, Any]) -> bool:
    """Whether every parameter of the run that the entry has too has the same value there."""
    for parameters in (entry.get("params") or {}).values():
        for name, value in flatten(parameters or {}).items():
            noted = run.data.params.get(name)
            if noted is not None and noted != str(value):
                return False
    return True


def find_runs(
    environment: Environment, entry: Mapping[str, Any] | str, accepted: Sequence[Acceptance] = ()
) -> list[Run]:
    """The MLflow runs that produced a lock entry (or the entry with this hash), newest first.

    Args:
        environment: where MLflow is.
        entry: of `dvc.lock`, or its hash.
        accepted: from `read_accepted`: if the entry's result was kept from an earlier one, the runs of that.

    Raises:
        OSError: MLflow can't be reached, or refuses.
    """
    digest = entry if isinstance(entry, str) else entry_hash(entry)
    for known in (digest, *(step.before for step in behind(digest, accepted))):
        if found := search(environment, f"tags.`{ENTRY_TAG}` = '{known}'"):
            return found
    return []


def containing_run(environment: Environment, entry: Mapping[str, Any]) -> str | None:
    """The run of the flow or of the experiment of DVC in which the result of a lock entry was made.

    Returns:
        Its id; None if it was made outside of one, or with a warning if MLflow can't say.
    """
    try:
        runs = find_runs(environment, entry, read_accepted(environment.workspace))
    except OSError as error:
        logger.warning("the run that this belongs to can't be looked up now: %s", _first_line(error))
        return None
    return runs[0].data.tags.get(PARENT_TAG) if runs else None


def search(environment: Environment, condition: str, limit: int = 50, *, deleted: bool = False) -> list[Run]:
    """The runs of our experiment that match an MLflow filter, newest first; deleted ones only on demand.

    Raises:
        OSError: MLflow can't be reached, or refuses.
    """
    if environment.mlflow_uri is None:
        return []
    server = server_of(environment)
    experiment = server.experiment_id(environment.mlflow_experiment)
    if experiment is None:
        return []
    return server.search_runs(experiment, condition, limit=limit, newest_first=True, deleted=deleted)


def link(
    environment: Environment,
    parent: StageRun,
    lock: Mapping[str, Mapping[str, Any]],
    names: Iterable[str],
) -> dict[str, str | None]:
    """Records the run of each stage in a flow's parent run, whether the stage ran now or earlier.

    Returns:
        The run id for each stage; None if this MLflow server has none (the stage was restored from the
        remote, say) or can't be reached.
    """
    found: dict[str, str | None] = {}
    try:
        accepted = read_accepted()
    except PipelineError as error:
        logger.warning("the runs of results that were kept can't be looked up: %s", error)
        accepted = ()
    for name in names:
        try:
            runs = find_runs(environment, lock[name], accepted) if name in lock else []
        except OSError as error:
            logger.warning("the run of %s can't be looked up now: %s", name, _first_line(error))
            runs = []
        found[name] = runs[0].info.run_id if runs else None
    parent.set_tags({run_tag(name): run_id or "none on this server" for name, run_id in found.items()})
    return found


def pipeline_files() -> list[Path]:
    """The files that describe what was run: lock, definition, parameters, kept results, sources' locks."""
    files = [Path(name) for name in PIPELINE_FILES]
    return [path for path in [*files, *sorted(SOURCES.glob("*.lock.json"))] if path.is_file()]


def run_tag(name: str) -> str:
    """The tag of a parent run that holds the run of stage `name` (MLflow allows no `@` there)."""
    return f"{RUN_TAG_PREFIX}{name.replace('@', '/')}"


@functools.lru_cache(maxsize=4)
def server_of(environment: Environment) -> Rest:
    """Calls to MLflow's REST API that don't hang for minutes on a server that is down; one per process."""
    return Rest(environment, retries=2)


def client_of(environment: Environment) -> MlflowClient:
    """An MLflow client that doesn't hang for minutes on a server that is down."""
    import os

    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    hand_over_token(environment)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=environment.mlflow_uri, registry_uri=environment.mlflow_uri)


def markdown(
    lock: Mapping[str, Mapping[str, Any]], runs: Mapping[str, str | None], outcomes: Mapping[str, str]
) -> str:
    """The lineage of a flow's stages as a Markdown table: entry hash, outputs, MLflow run."""
    rows = ["| stage | this time | lock entry | outputs | MLflow run |", "|---|---|---|---|---|"]
    for name, outcome in outcomes.items():
        entry = lock.get(name, {})
        outputs = "<br>".join(f"`{path}` {md5}" for path, md5 in sorted(_hashes(entry, "outs").items()))
        digest = entry_hash(entry)[:12] if entry else ""
        rows.append(f"| {name} | {outcome} | `{digest}` | {outputs} | {runs.get(name) or ''} |")
    return "\n".join(rows) + "\n"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
