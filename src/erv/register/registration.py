"""One version for each bundle and the code that serves it.

It is registered once, copies of it are deleted, and runs of killed publications closed.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from erv.environment import Environment
from erv.errors import RegistryError
from erv.files import content_digest, sha256_of_text
from erv.register.aliases import hand_over
from erv.register.card import with_verdicts
from erv.register.model_content import model_content
from erv.register.record import RECORD, RECORD_TAG, stored_files, version_record
from erv.register.register import Bundle
from erv.register.uncommitted import committed_code
from erv.register.verdict import Verdict
from erv.register.versions import (
    CODE_COMMIT_TAG,
    CODE_TAG,
    EXTERNAL_TAG,
    HASH_TAG,
    PATH_TAG,
    PUBLISH_RUN_TAG,
    versions_of,
)
from erv.tracking.description import PARENT_RUN_TAG
from erv.tracking.header import RunHeader
from erv.tracking.lineage_events import publication
from erv.tracking.lock_entries import LOCK_ARTIFACT_FOLDER, pipeline_files
from erv.tracking.opening import flow_run_id
from erv.tracking.origin import FLOW_TAG, origin_tags
from erv.tracking.patience import repeated
from erv.tracking.rest import deleted_experiment

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

logger = logging.getLogger(__name__)

MODEL_TAG = "erv.model"
PUBLISHER_TAG = "erv.publisher"


def one_version(
    client: MlflowClient,
    bundle: Bundle,
    code: str,
    name: str,
    environment: Environment,
    parent_run_id: str | None,
    check: Callable[[], None],
) -> tuple[ModelVersion, bool, tuple[str, ...]]:
    """The only version of a bundle with this serving code, registered if there is none.

    Also whether this call registered it, and the copies of it that were deleted.
    """
    runs: list[str] = []

    def registered() -> list[ModelVersion]:
        found = versions_of(client, name, bundle.hash)
        return [version for version in found if version.tags.get(CODE_TAG) == code]

    def attempt() -> list[ModelVersion]:
        # An attempt whose answer was lost may have registered it: look before and after.
        if not (found := registered()):
            check()
            _register(client, bundle, code, name, environment, parent_run_id, runs)
            found = registered()
        return found

    first, *copies = repeated(attempt)
    new = first.tags.get(PUBLISH_RUN_TAG) in runs
    if not first.description:  # also of a version whose publisher was killed
        describe(client, bundle, name, str(first.version), None)
    for copy in copies:
        check()
        _replace(client, name, str(copy.version), str(first.version))
    return first, new, tuple(str(copy.version) for copy in copies)


def describe(
    client: MlflowClient, bundle: Bundle, name: str, number: str, verdicts: Sequence[Verdict] | None
) -> None:
    """Writes the verdicts on a version into its description: the card, or what people made of it.

    Args:
        client: of the registry.
        bundle: of the version; it has the card.
        name: of the registered model.
        number: of the version.
        verdicts: on its gates; None if they were never decided.
    """
    found = repeated(lambda: client.get_model_version(name, number)).description
    text = with_verdicts(found or (bundle.folder / "card.md").read_text(encoding="utf-8"), verdicts)
    if text != found:
        repeated(lambda: client.update_model_version(name, number, text))


def _replace(client: MlflowClient, name: str, copy: str, number: str) -> None:
    """Deletes a copy of a version; its aliases and its place in the history go to the version."""
    hand_over(client, name, copy, number)
    repeated(lambda: _delete(client, name, copy))


def _delete(client: MlflowClient, name: str, number: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.delete_model_version(name, number)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def close_killed(client: MlflowClient, environment: Environment, name: str) -> None:
    """Closes the runs of killed publications: only one process publishes at a time, and that is us.

    Raises:
        RegistryError: the experiment is deleted.
    """
    experiment = repeated(lambda: client.get_experiment_by_name(environment.mlflow_experiment))
    if experiment is None:
        return
    if experiment.lifecycle_stage == "deleted":
        address = environment.mlflow_uri or ""
        sentence = deleted_experiment(experiment.name, experiment.experiment_id, address)
        raise RegistryError(environment.mask(sentence))
    query = "tags.`erv.kind` = 'publish' and attributes.status = 'RUNNING'"
    for run in repeated(lambda: client.search_runs([experiment.experiment_id], query)):
        run_id = run.info.run_id
        if run.data.tags.get(MODEL_TAG, name) == name and not _lives_here(run.data.tags.get(PUBLISHER_TAG)):
            repeated(lambda run_id=run_id: client.set_terminated(run_id, "KILLED"))  # type: ignore[misc]
            logger.warning("closed run %s, which a killed publication left open", run_id)


def _publisher() -> str:
    import psutil

    created = psutil.Process().create_time()
    return json.dumps({"host": platform.node(), "pid": os.getpid(), "created": created})


def _lives_here(publisher: str | None) -> bool:
    """Whether a publisher is another live process of this machine; one that failed in this process isn't."""
    if publisher is None:
        return False
    found = json.loads(publisher)
    if found["host"] != platform.node() or found["pid"] == os.getpid():
        return False
    return RunHeader("", "", 0, pid=found["pid"], created=found["created"]).owner_lives()


def _register(
    client: MlflowClient,
    bundle: Bundle,
    code: str,
    name: str,
    environment: Environment,
    parent_run_id: str | None,
    runs: list[str],
) -> None:
    """Stores the bundle as a model and registers it, tagged with its hash from the start.

    The id of the run that does it is added to `runs`.
    """
    import mlflow

    mlflow.set_tracking_uri(environment.mlflow_uri)
    mlflow.set_registry_uri(environment.mlflow_uri)
    mlflow.end_run("FAILED")  # of an earlier attempt that could not be ended
    tags = {
        "erv.kind": "publish",
        HASH_TAG: bundle.hash,
        MODEL_TAG: name,
        PUBLISHER_TAG: _publisher(),
    }
    if parent_run_id:
        tags["mlflow.parentRunId"] = parent_run_id
    if flow := flow_run_id(client, parent_run_id):
        tags[FLOW_TAG] = flow
    origin = origin_tags(environment.workspace)
    if (commit := committed_code(bundle.folder, environment.workspace).commit) is not None:
        origin[CODE_COMMIT_TAG] = commit
    tags |= origin
    experiment = mlflow.set_experiment(environment.mlflow_experiment)
    with (
        tempfile.TemporaryDirectory() as folder,
        mlflow.start_run(experiment_id=experiment.experiment_id, run_name="publish", tags=tags) as run,
    ):
        runs.append(run.info.run_id)
        for file in () if bundle.is_external else pipeline_files():
            repeated(functools.partial(mlflow.log_artifact, str(file), LOCK_ARTIFACT_FOLDER))
        content = model_content(bundle.folder, Path(folder))
        info = repeated(lambda: mlflow.pyfunc.log_model(name="model", **content))
        (stored,) = map(Path, content["code_paths"])
        record = _record(
            client, bundle, stored, code, name, info.model_id, run.info.run_id, parent_run_id, origin
        )
        made = mlflow.register_model(
            info.model_uri,
            name,
            tags={
                HASH_TAG: bundle.hash,
                CODE_TAG: code,
                **({CODE_COMMIT_TAG: commit} if commit is not None else {}),
                PATH_TAG: f"artifacts/{bundle.folder.name}",
                PUBLISH_RUN_TAG: run.info.run_id,
                RECORD_TAG: record,
                **({PARENT_RUN_TAG: parent_run_id} if parent_run_id else {}),
                **({EXTERNAL_TAG: "true"} if bundle.is_external else {}),
            },
        )
        candidate = (bundle.folder.as_posix(), content_digest(bundle.folder))
        publication(environment, candidate, f"{name}/{made.version}", tags)


def _record(
    client: MlflowClient,
    bundle: Bundle,
    stored: Path,
    code: str,
    name: str,
    model_id: str,
    run_id: str,
    parent_run_id: str | None,
    origin: Mapping[str, str],
) -> str:
    """Stores `lineage.json` with the model's files; returns its SHA-256."""
    with tempfile.TemporaryDirectory() as folder:
        files = stored_files(client, model_id, bundle, stored, Path(folder))
        text = version_record(
            bundle, name, code=code, files=files, run_id=run_id, parent_run_id=parent_run_id, origin=origin
        )
        path = Path(folder) / RECORD
        path.write_text(text, encoding="utf-8", newline="\n")
        repeated(lambda: client.log_model_artifact(model_id, str(path)))
    return sha256_of_text(text)
