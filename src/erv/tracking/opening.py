"""Opens the MLflow run of a stage: its name, and tags that say which commit and which flow it belongs to."""

from __future__ import annotations

import logging
import os
import platform
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING

from erv.environment import Environment, remedy_for
from erv.tracking.experiments import experiment_run, experiment_tags
from erv.tracking.header import RunHeader
from erv.tracking.lineage_events import events_of
from erv.tracking.lock_entries import PARENT_TAG
from erv.tracking.names import HOST_TAG
from erv.tracking.origin import FLOW_TAG, origin_tags
from erv.tracking.outbox import now_ms
from erv.tracking.run import StageRun

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

PARENT_VARIABLE = "ERV_PARENT_RUN_ID"
# Of a stage that runs on a worker: its work pool, and the hash of the uncommitted changes that came along.
PLACED_VARIABLE = "ERV_PLACED_IN"
# Of a stage that the flow sends to that pool: here its result may be restored, but not made.
SENT_VARIABLE = "ERV_SENT_TO"
_PLACED = {PLACED_VARIABLE: "erv.placed_in", "ERV_PATCH": "erv.patch"}
FLOW_VARIABLES = ("ERV_FLOW_RUN_ID", "PREFECT__FLOW_RUN_ID")


def flow_run_id(client: MlflowClient | None = None, parent_run_id: str | None = None) -> str | None:
    """The flow run of Prefect that this process works for; None outside of any.

    Args:
        client: of MLflow, needed with a parent run.
        parent_run_id: the flow's run of MLflow, for the process of the flow itself: no variable names it.
    """
    found = next((os.environ[name] for name in FLOW_VARIABLES if os.environ.get(name)), None)
    if found is None and client is not None and parent_run_id is not None:
        found = client.get_run(parent_run_id).data.tags.get(FLOW_TAG)
    return found


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
    origin = origin_tags(environment.workspace)
    all_tags.update({**origin, **experiment_tags(), HOST_TAG: platform.node()})
    parent, experiment = os.environ.get(PARENT_VARIABLE), None
    if not parent and not silent:
        parent = experiment = experiment_run(environment, origin)
    if parent:
        all_tags[PARENT_TAG] = parent
    if flow := flow_run_id():
        all_tags[FLOW_TAG] = flow
    all_tags.update({tag: os.environ[name] for name, tag in _PLACED.items() if os.environ.get(name)})
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
        experiment=experiment,
    )
    if silent:
        return StageRun(environment, header)
    run = StageRun(environment, header, events_of(environment, address, header.key, all_tags))
    if environment.mlflow_uri is None:
        remedy = remedy_for("MLflow", environment.workspace)
        logger.info("no MLflow server is configured, so nothing is tracked; to track, %s", remedy)
    run.open()
    return run
