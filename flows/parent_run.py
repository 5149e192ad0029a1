"""The MLflow run of a flow, which contains those of its stages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from erv.environment import Environment
from erv.pipeline import StageCancelledError
from erv.sweep.tracked import sweep_tags
from erv.tracking import experiment_page
from erv.tracking.description import FLOW, KIND_TAG, Description
from erv.tracking.opening import open_run
from erv.tracking.run import StageRun
from erv.tracking.system_metrics import system_metrics


@contextmanager
def parent_run(
    environment: Environment,
    flow_run_id: UUID,
    described: Description,
    *,
    stage: str = "train",
    kind: str = FLOW,
    name: str = "",
) -> Iterator[StageRun]:
    """Opens the run that names all stages of this flow run, and ends it with the block.

    Args:
        environment: where MLflow is.
        flow_run_id: of the flow.
        described: its name, tags and parameters.
        stage: what it is filed under.
        kind: of `erv.tracking.description`.
        name: in place of that of the description.
    """
    tags = {
        KIND_TAG: kind,
        "mlflow.source.name": f"flows/{stage}.py",
        "prefect.flow_run_id": str(flow_run_id),
        **described.tags,
        **sweep_tags(),
    }
    parent = open_run(environment, stage, stage, tags, name=name or described.name)
    parent.log_params(described.parameters)
    experiment_page.set_up_page(environment, described.tags["erv.candidate"])
    try:
        with system_metrics(parent):
            yield parent
    except Exception as error:
        parent.close("KILLED" if isinstance(error, StageCancelledError) else "FAILED")
        raise
    except BaseException:  # SIGTERM or Ctrl-C
        parent.close("KILLED")
        raise
    parent.close("FINISHED")
