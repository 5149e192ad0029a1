"""What a flow run leaves in Prefect's UI: metrics, lineage, stages, links."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.logging import get_run_logger

from erv import pipeline
from erv.environment import Environment
from erv.errors import ErvError
from erv.results import page as by_setting
from erv.results.gather import gather
from erv.tracking import experiment_page, lock_entries, records
from erv.tracking.names import DATA_DOCS_TAG
from erv.tracking.run import StageRun
from flows.graph import StageReport
from flows.summary import KEPT_REPORT, REPORT, duration, metric_rows


@contextmanager
def prefect_may_be_away(what: str) -> Iterator[None]:
    """Warns instead of failing if Prefect can't be reached in the block: results don't depend on its page."""
    try:
        yield
    except httpx.HTTPError as error:
        get_run_logger().warning("Prefect can't be reached (%s); its page will lack %s", error, what)


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
    create_markdown_artifact(
        key="lineage", markdown=lock_entries.markdown(pipeline.read_lock_entries(), runs, outcomes)
    )


def data_docs(
    environment: Environment,
    reports: Sequence[StageReport],
    runs: Mapping[str, str | None],
    parent: StageRun,
) -> dict[str, str]:
    """Addresses of the Data Docs of the stages, failed ones too, in MLflow.

    Args:
        environment: where MLflow is; nothing happens without one.
        reports: the stages of this flow run.
        runs: the MLflow run of each finished stage.
        parent: the flow's own MLflow run.

    Returns:
        Addresses by stage (`validate@mafw`).
    """
    if not environment.mlflow_uri:
        return {}
    server, links = lock_entries.server_of(environment), {}
    for report in reports:
        run_id = runs.get(report.name) or _failed_run(environment, report)
        if run_id is None:
            continue
        try:
            run = server.get_run(run_id)
        except OSError as error:
            get_run_logger().warning("the Data Docs of %s can't be looked up now: %s", report.name, error)
            continue
        path = run.data.tags.get(DATA_DOCS_TAG)
        # If a stage failed before it wrote any, its newest Data Docs are those of an earlier flow run.
        ours = run.data.tags.get("mlflow.parentRunId") == parent.run_id
        if path and (report.outcome != "failed" or ours):
            links[report.name] = f"{_run_url(environment, run)}/artifacts/{path}"
    return links


def show_data_docs(links: Mapping[str, str]) -> None:
    """Links to the Data Docs in Prefect."""
    for name, url in links.items():
        key = re.sub(r"[^a-z0-9]+", "-", f"data-docs-{name.rpartition('@')[2]}".lower())
        create_link_artifact(key=key, link=url, link_text=f"Data Docs of {name}")


def docs_note(links: Mapping[str, str]) -> str:
    """The links to Data Docs for the description of a run; nothing if there are none."""
    lines = [f"- [{name}]({url})" for name, url in links.items()]
    return "\n".join(["", "Data Docs:", "", *lines, ""]) if lines else ""


def show_by_setting(environment: Environment, parent: StageRun, addresses: dict[str, str]) -> None:
    """Stores the figures of all results, each beside its setting, with the flow's run, and links their page.

    Args:
        environment: where MLflow is; nothing happens without one.
        parent: the flow's own MLflow run.
        addresses: for people, from `show_links`; gets that of the page.
    """
    if not environment.mlflow_uri:
        return
    try:
        with tempfile.TemporaryDirectory() as folder:
            paths = by_setting.write(gather(environment), Path(folder))
            for path in paths:
                parent.log_artifact(path, str(KEPT_REPORT.parent))
    except Exception as error:
        # It reads runs of everybody, which may hold anything; this run's own results are stored by now.
        reason = environment.mask(str(error))
        if not isinstance(error, ErvError | OSError):
            reason = f"{type(error).__name__} ({reason})"
        get_run_logger().warning("the page of figures per setting is missing from this run: %s", reason)
        return
    if "MLflow" in addresses:
        url = f"{addresses['MLflow']}/artifacts/{KEPT_REPORT.parent}/{paths[0].name}"
        addresses["by setting"] = url
        with prefect_may_be_away("the link to figures per setting"):
            create_link_artifact(key="by-setting", link=url, link_text="Figures per setting")


def _failed_run(environment: Environment, report: StageReport) -> str | None:
    record = records.read(environment, report.name) if report.outcome == "failed" else None
    return record.get("run_id") if record else None


def _run_url(environment: Environment, run: Any) -> str:
    return f"{_base(environment)}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"


def _base(environment: Environment) -> str:
    return (environment.mlflow_uri or "").rstrip("/")


def show_links(
    environment: Environment, run_id: str | None, flow_run_id: UUID, reported: bool
) -> dict[str, str]:
    """Links to the parent run and its report in MLflow.

    Args:
        environment: where MLflow and Prefect are.
        run_id: the flow's own MLflow run.
        flow_run_id: the flow run.
        reported: whether that MLflow run gets a copy of the report, which alone names its origin.

    Returns:
        Addresses for people: MLflow run, Prefect run, report, and the report's file here.
    """
    addresses: dict[str, str] = {}
    if environment.mlflow_uri and run_id:
        run = lock_entries.server_of(environment).get_run(run_id)
        url = _run_url(environment, run)
        create_link_artifact(key="mlflow-run", link=url, link_text="MLflow run of this flow")
        addresses["MLflow"] = url
        addresses["all runs"] = experiment_page.address(_base(environment), run.info.experiment_id)
        if reported:
            addresses["report"] = f"{url}/artifacts/{KEPT_REPORT}"
            create_link_artifact(key="report", link=addresses["report"], link_text="Report")
    ui = environment.prefect_ui_url or (environment.prefect_api_url or "").removesuffix("/api")
    if ui:
        addresses["Prefect"] = f"{ui.rstrip('/')}/runs/flow-run/{flow_run_id}"
    if REPORT.is_file():
        addresses["report file"] = str(Path.cwd() / REPORT)
    return addresses
