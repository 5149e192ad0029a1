"""The train flow: runs every stage of `dvc.yaml` in order, then stores, registers and reports the results.

`erv run` starts it through `flows.run`, `prefect deployment run train/local` through a worker. The deployment
`train/distributed` is the same flow, with a placement.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow
from prefect.logging import get_run_logger
from prefect.task_runners import ThreadPoolTaskRunner

from erv.environment import load_environment
from erv.remote.placement import read_placement
from erv.tracking.description import NOTE_TAG
from erv.tracking.origin import who
from flows import console, origin
from flows.artifacts import (
    data_docs,
    docs_note,
    prefect_may_be_away,
    show_artifacts,
    show_by_setting,
    show_data_docs,
    show_links,
)
from flows.beginning import beginning
from flows.cancellation import Cancellation
from flows.drift import tell_drift
from flows.form import Override, PlacedStage, ProfileName, StageName, StageNames, Workers
from flows.given import Applied, Given, applied
from flows.graph import is_done
from flows.meanwhile import meanwhile
from flows.parent_run import parent_run
from flows.results import includes, link_runs, publish_candidate, since_before, store_outputs
from flows.stages import bring_up_to_date, raise_for
from flows.summary import (
    KEPT_REPORT,
    REPORT,
    Summary,
    flat_metrics,
    how_many,
    metrics_text,
    read_comparison,
    stage_table,
)
from flows.wanted import Wanted
from flows.workspace import in_workspace

WORKERS = 2
MOST_WORKERS = 96  # threads, which mostly wait; the flow's parameter sets how many stages run at a time here


@flow(
    name="train",
    persist_result=False,
    retries=0,
    task_runner=ThreadPoolTaskRunner(max_workers=MOST_WORKERS),  # type: ignore[arg-type]
)
def train(
    profile: ProfileName = "",
    targets: StageNames = (),
    overrides: Sequence[Override] = (),
    force: bool = False,
    ref: str = "",
    workers: Workers = WORKERS,
    only: StageName = "",
    placement: Sequence[PlacedStage] = (),
) -> Any:
    """Brings the targets and everything they need up to date, stores the outputs, registers the candidate.

    Args:
        profile: settings of the whole pipeline to write into params.yaml before the run, as `erv params use`
            does; they stay there. By default params.yaml is taken as it is.
        targets: stages (`grpo@erv`) or groups (`grpo`) of `dvc.yaml`, which run with all that they need; all
            of them by default.
        overrides: single parameters to write into params.yaml before the run, as NAME=VALUE
            (`grpo.beta=0.1`); they stay there, as with `dvc exp run -S`, and count after the profile. An
            unknown name or a wrong value ends the run before anything is changed.
        force: run the targets, or else all stages, even if nothing changed. What the targets need, and what
            follows from them, still runs only if DVC finds a change.
        ref: run only if this git commit, branch or tag is what the clone of the worker has checked out,
            without uncommitted changes but those of parameters and results. Nothing is checked out. By
            default what is there runs.
        workers: how many independent stages run in parallel.
        only: one stage to run alone, in place of targets; what it reads must be up to date.
        placement: stages that run on other machines, as STAGE=POOL (`grpo=gpu`): a step or stage of
            `dvc.yaml`, and a work pool that `erv run --worker --pool POOL` serves there. It counts for this
            run, before machine.placement of params.yaml; all other stages run in the clone of the worker.
            Their commit is sent along, so uncommitted changes are refused, but for those of parameters.
    """

    def work(flow_run_id: UUID, cancellation: Cancellation) -> Summary:
        wanted, sent = Wanted(list(targets) or None, force, only or None), read_placement(placement)
        with applied(load_environment(), Given(profile or None, overrides, ref or None)) as given:
            return run_pipeline(flow_run_id, wanted, workers, cancellation, given, sent)

    return in_workspace(work)


def run_pipeline(
    flow_run_id: UUID,
    wanted: Wanted,
    workers: int,
    cancellation: Cancellation,
    given: Applied,
    placement: Mapping[str, str] | None = None,
) -> Summary:
    """Does what `train` says, in a flow that holds the workspace.

    Args:
        flow_run_id: of the flow.
        wanted: which stages.
        workers: how many of them run side by side.
        cancellation: says whether to stop.
        given: the parameters, which stay from when stages begin, and tags for the MLflow run.
        placement: of this run, which counts before `machine.placement`.

    Raises:
        ErvError: as the checks, a stage or the publication says.
    """
    logger = get_run_logger()
    begun = beginning(wanted, cancellation, placement)
    environment, settings, stages = begun.environment, begun.settings, begun.stages
    logger.info("%s", how_many(len(stages), workers))
    described = begun.described
    described.tags.update(given.tags)
    with parent_run(environment, flow_run_id, described) as parent:
        given.keep()
        reports = bring_up_to_date(
            environment,
            stages,
            begun.placement,
            begun.unchanged,
            begun.forced,
            workers,
            flow_run_id,
            parent,
            cancellation,
        )
        if not all(map(is_done, reports)):  # else the summary has it
            logger.info("stages:\n%s", stage_table(reports))
        with meanwhile(functools.partial(store_outputs, environment, reports, cancellation)):
            runs = link_runs(environment, parent, reports)
            tell_drift(environment, settings.register_.model_name, reports, runs)
            docs = data_docs(environment, reports, runs, parent)
            parent.set_tags({NOTE_TAG: described.tags[NOTE_TAG] + docs_note(docs)})
            with prefect_may_be_away("the Data Docs"):
                show_data_docs(docs)
        raise_for(reports, docs, cancellation)

        published, lineage, holds = publish_candidate(
            environment,
            stages,
            settings,
            parent,
            cancellation,
            origin.started_by() or who(environment.workspace),
        )
        logger.info("writing figures, links and tables to MLflow and Prefect")
        comparison = read_comparison() if includes(stages, "report") else {}
        parent.log_metrics(flat_metrics(comparison))
        addresses: dict[str, str] = {}
        with prefect_may_be_away("links, tables and lineage"):
            reported = bool(comparison) and REPORT.is_file()
            addresses = show_links(environment, parent.run_id, flow_run_id, reported)
            show_artifacts(reports, comparison, runs)
        if any(report.name == "report" and report.outcome in ("ran", "restored") for report in reports):
            show_by_setting(environment, parent, addresses)
        if comparison and REPORT.is_file():
            page = origin.report_with_origin(environment, settings, published, addresses, parent.tags, logger)
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder) / KEPT_REPORT.name
                copy.write_text(page, encoding="utf-8")
                parent.log_artifact(copy, str(KEPT_REPORT.parent))
        changed = since_before(environment, parent, described, comparison)
    summary = Summary(
        reports,
        metrics_text(comparison),
        published.lines() if published is not None else [],
        addresses,
        lineage,
        changed,
        gates_passed=published is not None and published.passed,
        lineage_holds=holds,
    )
    logger.info("%s", summary.text(), extra=console.PRINTED)
    return summary
