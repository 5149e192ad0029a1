"""Tells Prefect of trainings whose rewards drifted; its automations tell people (`flows.notices`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prefect.logging import get_run_logger

from erv.environment import Environment
from erv.errors import StackError
from erv.stack.prefect_events import MODEL_LABEL, emit
from erv.tracking.lock_entries import server_of
from flows.graph import StageReport

EVENT = "erv.drift"
METRIC = "drift_warnings"  # of a training's run; `erv.training.grpo.drift` says what counts


def tell_drift(
    environment: Environment, model: str, reports: Sequence[StageReport], runs: Mapping[str, str | None]
) -> list[str]:
    """Sends an event for each stage that ran now and warned of drift; what can't be sent is a warning.

    Args:
        environment: where MLflow and Prefect are.
        model: the name of the registered model that is trained.
        reports: the stages of this flow run.
        runs: the MLflow run of each finished stage.

    Returns:
        The names of these stages.
    """
    drifted = []
    for report in reports:
        run_id = runs.get(report.name)
        if report.outcome != "ran" or not run_id or not environment.mlflow_uri:
            continue
        try:
            warnings = int(server_of(environment).metrics(run_id).get(METRIC, 0))
            if not warnings:
                continue
            drifted.append(report.name)
            text = (
                f"{report.name} warned of drift {_times(warnings)} while it trained; its log says of what,"
                f" MLflow run {run_id} has the curves"
            )
            resource = {"prefect.resource.id": f"erv.stage.{report.name}", MODEL_LABEL: model}
            emit(environment, EVENT, resource, {"text": text, "stage": report.name, "run": run_id})
        except (OSError, StackError) as error:
            get_run_logger().warning("drift of %s can't be told now: %s", report.name, error)
    return drifted


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
