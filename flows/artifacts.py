"""What a flow run leaves in Prefect's UI: metrics, lineage, stages, links."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from erv import lineage, pipeline
from erv.environment import Environment
from flows.graph import StageReport
from flows.summary import REPORT, duration, metric_rows


def show_artifacts(
    reports: Sequence[StageReport], comparison: dict[str, Any], runs: Mapping[str, str | None]
) -> None:
    """Tables of stages and metrics, and the lineage."""
    outcomes = {report.name: report.outcome for report in reports}
    create_table_artifact(
        key="stages",
        table=[
            {"stage": report.name, "outcome": report.outcome, "time": duration(report.seconds)}
            for report in reports
        ],
        description="What each stage did this time",
    )
    if comparison:
        create_table_artifact(
            key="metrics", table=metric_rows(comparison), description="Policies on the same clips"
        )
    create_markdown_artifact(key="lineage", markdown=lineage.markdown(pipeline.read_lock(), runs, outcomes))


def show_links(environment: Environment, run_id: str | None, flow_run_id: UUID) -> dict[str, str]:
    """Links to the parent run and its report in MLflow.

    Returns:
        Addresses for people: MLflow run, Prefect run, report file.
    """
    addresses: dict[str, str] = {}
    if environment.mlflow_uri and run_id:
        experiment = lineage.client_of(environment).get_run(run_id).info.experiment_id
        url = f"{environment.mlflow_uri.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}"
        create_link_artifact(key="mlflow-run", link=url, link_text="MLflow run of this flow")
        addresses["MLflow"] = url
        if REPORT.is_file():
            create_link_artifact(key="report", link=f"{url}/artifacts", link_text="Report")
    ui = environment.prefect_ui_url or (environment.prefect_api_url or "").removesuffix("/api")
    if ui:
        addresses["Prefect"] = f"{ui.rstrip('/')}/runs/flow-run/{flow_run_id}"
    if REPORT.is_file():
        addresses["report"] = str(Path.cwd() / REPORT)
    return addresses
