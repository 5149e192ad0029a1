"""OpenLineage events of stages, flows and publications, sent with OpenLineage's own client.

Nothing is sent unless the client is configured as its documentation says: `OPENLINEAGE_URL`,
`OPENLINEAGE_CONFIG`, a variable that begins with `OPENLINEAGE__`, or `openlineage.yml` in the workspace. A
collector that is away costs an event and a warning, never a stage.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from erv import __version__
from erv.environment import Environment
from erv.files import md5_of_file
from erv.tracking.origin import COMMIT_TAG, DIRTY_TAG, FLOW_TAG

logger = logging.getLogger(__name__)

FILE = "openlineage.yml"
FLOW_JOB = "train"
_PRODUCER = f"urn:erv:{__version__}"
_STATES = {"FINISHED": "COMPLETE", "FAILED": "FAIL", "KILLED": "ABORT"}
_CODE = ("src/", "stages/", "requirements/")

# What is read and what is written: paths with DVC's hash, where it is known.
Data = tuple[list[tuple[str, str | None]], list[tuple[str, str | None]]]


class Events(Protocol):
    """Tells of one run."""

    def start(self) -> None:
        """It starts."""

    def end(self, status: str, message: str = "") -> None:
        """It ends: `FINISHED`, `FAILED` or `KILLED`, with what failed."""


class _Silent:
    def start(self) -> None:
        pass

    def end(self, status: str, message: str = "") -> None:
        pass


SILENT: Events = _Silent()


def is_configured(workspace: Path) -> bool:
    """Whether someone said where events go."""
    if os.environ.get("OPENLINEAGE_DISABLED", "").lower() == "true":
        return False
    named = any(os.environ.get(name) for name in ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG"))
    dynamic = any(name.startswith("OPENLINEAGE__") for name in os.environ)
    return named or dynamic or (workspace / FILE).is_file()


def events_of(environment: Environment, address: str, key: str, tags: Mapping[str, str]) -> Events:
    """Events of the run of a stage or flow; silent ones unless the client is configured.

    Args:
        environment: names the experiment, which is the namespace of jobs, and the bucket, that of data sets.
        address: of the stage, `grpo@erv`, or `train` for the flow.
        key: a hexadecimal UUID, which the events have in common.
        tags: of the MLflow run.
    """
    if not is_configured(environment.workspace):
        return SILENT
    return _Sent(environment, address, str(uuid.UUID(key)), tags)


def publication(
    environment: Environment, bundle: tuple[str, str | None], version: str, tags: Mapping[str, str]
) -> None:
    """Tells that a bundle was registered; nothing unless the client is configured.

    Args:
        environment: as for `events_of`.
        bundle: path and hash of the candidate.
        version: `emotion-policy/3`.
        tags: of the run that published it.
    """
    if not is_configured(environment.workspace):
        return
    events = _Sent(
        environment, "publish", str(uuid.uuid4()), tags, ([bundle], [(f"models:/{version}", None)])
    )
    events.start()
    events.end("FINISHED")


class _Sent:
    """Sends events; what goes wrong is a warning."""

    def __init__(
        self,
        environment: Environment,
        address: str,
        run_id: str,
        tags: Mapping[str, str],
        data: Data | None = None,
    ) -> None:
        self._environment, self._address, self._run_id, self._tags = environment, address, run_id, tags
        self._data = data
        self._client: Any = None

    def start(self) -> None:
        self._emit("START")

    def end(self, status: str, message: str = "") -> None:
        self._emit(_STATES[status], message)

    def _emit(self, state: str, message: str = "") -> None:
        try:
            if self._client is None:
                from openlineage.client import OpenLineageClient

                self._client = OpenLineageClient()
            if self._data is None:
                self._data = _data_of(self._environment.workspace, self._address)
            self._client.emit(self._event(state, self._environment.mask(message)))
        except Exception as error:  # a collector's trouble is not the run's
            text = self._environment.mask(" ".join(str(error).split()))[:200]
            logger.warning("no OpenLineage event %s of %s was sent: %s", state, self._address, text)

    def _event(self, state: str, message: str) -> Any:
        from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
        from openlineage.client.facet_v2 import (
            dataset_version_dataset,
            error_message_run,
            job_type_job,
            parent_run,
            tags_run,
        )

        assert self._data is not None
        namespace = self._environment.mlflow_experiment
        facets: dict[str, Any] = {}
        flow = self._tags.get(FLOW_TAG)
        if flow and self._address != FLOW_JOB:
            facets["parent"] = parent_run.ParentRunFacet(
                run=parent_run.Run(runId=flow), job=parent_run.Job(namespace=namespace, name=FLOW_JOB)
            )
        if message:
            facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(
                message=message, programmingLanguage="Python"
            )
        known = {tag: self._tags[tag] for tag in (COMMIT_TAG, DIRTY_TAG) if tag in self._tags}
        if known:
            fields = [tags_run.TagsRunFacetFields(key, value, "ERV") for key, value in known.items()]
            facets["tags"] = tags_run.TagsRunFacet(tags=fields)

        def version(md5: str | None) -> dict[str, Any]:
            return {} if md5 is None else {"version": dataset_version_dataset.DatasetVersionDatasetFacet(md5)}

        store = f"s3://{self._environment.dvc_bucket}" if self._environment.has_storage else "file"
        inputs, outputs = self._data
        kind = "FLOW" if self._address == FLOW_JOB else "STAGE"
        return RunEvent(
            eventType=RunState[state],
            eventTime=datetime.now(UTC).isoformat(),
            run=Run(runId=flow if flow and self._address == FLOW_JOB else self._run_id, facets=facets),
            job=Job(
                namespace=namespace,
                name=self._address,
                facets={"jobType": job_type_job.JobTypeJobFacet("BATCH", "ERV", kind)},
            ),
            producer=_PRODUCER,
            inputs=[InputDataset(store, path, facets=version(md5)) for path, md5 in inputs],
            outputs=[OutputDataset(store, path, facets=version(md5)) for path, md5 in outputs],
        )


def _data_of(workspace: Path, address: str) -> Data:
    """What a stage reads and writes, code apart: paths, and DVC's hash of what it reads.

    The hash of an output isn't known yet: DVC computes it when the stage has ended. It is the version of the
    input of whoever reads it next.
    """
    from erv.pipeline import read_lock_entries, read_stages

    if address == FLOW_JOB:
        return [], []
    stage = next((item for item in read_stages(workspace) if item.name == address), None)
    if stage is None:
        return [], []
    written = {
        out["path"]: out.get("md5")
        for entry in read_lock_entries(workspace / "dvc.lock").values()
        for out in entry.get("outs") or []
    }
    reads = [path for path in stage.dependencies if not path.startswith(_CODE)]
    return [(path, _version(workspace, path, written)) for path in reads], [
        (path, None) for path in stage.outputs
    ]


def _version(workspace: Path, path: str, written: Mapping[str, str | None]) -> str | None:
    if path in written:
        return written[path]
    return md5_of_file(workspace / path) if (workspace / path).is_file() else None
