"""The train flow: runs every stage of `dvc.yaml` in order, then stores, registers and reports the results.

`erv run` starts it through `flows.run`, `prefect deployment run train/local` through a worker. The deployment
`train/distributed` is the same flow, with a placement.
"""

from __future__ import annotations

import functools
import importlib
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow
from prefect.logging import get_run_logger
from prefect.task_runners import ThreadPoolTaskRunner

from erv import pipeline
from erv.doctor import preflight
from erv.environment import Environment, child_environment, isolate, load_environment
from erv.parameters import parse, read
from erv.pipeline import PipelineStage, StageCancelledError, StageFailedError, StageResult, Unchanged
from erv.remote.placement import places, read_placement
from erv.stack.dvc_remote import write_dvc_remote
from erv.stack.outages import through_outages
from erv.tracking import experiment_page, lock_entries
from erv.tracking.description import FLOW, KIND_TAG, NOTE_TAG, Description, describe
from erv.tracking.opening import PLACED_VARIABLE, open_run
from erv.tracking.origin import who
from erv.tracking.run import StageRun
from erv.tracking.system_metrics import system_metrics
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
from flows.cancellation import Cancellation
from flows.drift import tell_drift
from flows.form import Override, PlacedStage, ProfileName, StageName, StageNames, Workers
from flows.given import Applied, Given, applied
from flows.graph import RunStage, StageReport, is_done, run_graph
from flows.meanwhile import meanwhile
from flows.placed import Placed, ready
from flows.results import includes, link_runs, publish_candidate, since_before, store_outputs
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
    environment = load_environment()
    isolate(environment)
    repaired = pipeline.repair_lock()
    if repaired is not None:
        logger.warning("%s", repaired)
    logger.info("reading pipeline and pins, and checking settings, judges, disk and servers")
    everything = pipeline.read_stages()
    needed = wanted.needed(everything)
    settings = preflight.check(environment, needed, placement)
    moved = pipeline.set_aside(everything, pipeline.read_lock_entries())
    if moved:
        logger.warning(
            "set aside what no stage of dvc.yaml writes any more: %s; the cache still has the outputs of a"
            " stage that is asked for again",
            ", ".join(map(str, moved)),
        )
    # DVC reads its remote from a file: what ERV_S3_* says now counts for it too.
    write_dvc_remote(environment)
    forced = wanted.forced(everything)
    logger.info("asking DVC which stages are up to date")
    unchanged = _ask_unchanged(environment, needed, forced, cancellation)
    stages = wanted.to_run(needed, unchanged)
    logger.info("%s", how_many(len(stages), workers))

    described = describe(
        environment,
        parse(read(environment.workspace)),
        candidate=settings.register_.policy,
        model=settings.register_.model_name,
        targets=wanted.names,
        started_by=origin.started_by(),
    )
    pools = places(everything, settings.machine.placement)
    sent = [s.name for s in stages if s.name in pools and unchanged.result(s.name) is None]
    there = ready(environment, settings.machine, {pools[name] for name in sent})
    described.tags.update(given.tags)
    with _parent_run(environment, flow_run_id, described) as parent:
        given.keep()
        variables = _variables(flow_run_id, parent)
        placed = Placed(
            environment,
            settings.machine,
            everything,
            pools,
            forced,
            str(flow_run_id),
            variables,
            cancellation.asked,
        )
        repro = _stage_runner(environment, variables, forced, unchanged, cancellation, stages, placed)
        reports = run_graph(
            stages, repro, workers=workers, cancelled=cancellation.asked, places=pools, limits=there
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
        _raise_for(reports, docs, cancellation)

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


@contextmanager
def _parent_run(environment: Environment, flow_run_id: UUID, described: Description) -> Iterator[StageRun]:
    """The MLflow run that names all stages of this flow run."""
    tags = {
        KIND_TAG: FLOW,
        "mlflow.source.name": "flows/train.py",
        "prefect.flow_run_id": str(flow_run_id),
        **described.tags,
    }
    parent = open_run(environment, "train", "train", tags, name=described.name)
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


def _ask_unchanged(
    environment: Environment,
    stages: Sequence[PipelineStage],
    forced: Collection[str],
    cancellation: Cancellation,
) -> Unchanged:
    pipeline.release_dead_holders()

    def import_meanwhile(_stopped: Callable[[], bool]) -> None:
        """Publishing and lineage need MLflow, whose import takes as long as DVC's answer."""
        if includes(stages, "register"):
            importlib.import_module("mlflow")

    with meanwhile(import_meanwhile):
        return pipeline.ask_unchanged(
            stages,
            forced=forced,
            cancelled=cancellation.asked,
            environment=child_environment(environment),
        )


def _variables(flow_run_id: UUID, parent: StageRun) -> dict[str, str]:
    """What tells a stage which runs it belongs to."""
    variables = {"ERV_FLOW_RUN_ID": str(flow_run_id)}
    if parent.run_id:
        variables["ERV_PARENT_RUN_ID"] = parent.run_id
    return variables


def _stage_runner(
    environment: Environment,
    variables: Mapping[str, str],
    forced: Collection[str],
    unchanged: Unchanged,
    cancellation: Cancellation,
    stages: Sequence[PipelineStage],
    placed: Placed,
) -> RunStage:
    variables = child_environment(environment) | dict(variables)
    variables.pop(PLACED_VARIABLE, None)  # left in the shell; what is placed is sent, what isn't runs here
    by_name = {stage.name: stage for stage in stages}

    def run(name: str, on_line: Any) -> StageResult:
        known = unchanged.result(name)
        if known is not None:
            on_line(f"Stage '{name}' didn't change, skipping")
            return known
        if name in placed.places:
            return placed.run(by_name[name], on_line)
        repro = functools.partial(
            pipeline.repro,
            name,
            on_line=on_line,
            cancelled=cancellation.asked,
            pull=environment.has_storage and name not in forced,
            force=name in forced,
            environment=variables,
        )
        result = through_outages(environment, repro, say=on_line, cancelled=cancellation.asked)
        lock_entries.reconcile(environment, pipeline.read_lock_entries(), [name])
        return result

    return run


def _raise_for(reports: Sequence[StageReport], docs: Mapping[str, str], cancellation: Cancellation) -> None:
    failed = [
        f"{report.message}; its Data Docs: {docs[report.name]}" if report.name in docs else report.message
        for report in reports
        if report.outcome == "failed"
    ]
    if len(failed) == 1:
        raise StageFailedError(failed[0])
    if failed:
        count = f"{len(failed)} stages failed"
        raise StageFailedError("\n".join([count, *(f"  - {message}" for message in failed)]))
    if cancellation.asked():
        raise StageCancelledError("cancelled; finished work is kept, run it again to resume")
