"""The train flow: runs every stage of `dvc.yaml` in order, then stores, registers and reports the results.

    python -m flows.train [TARGET... | --only STAGE] [--force] [--workers N]

`erv run` starts it with the addresses of the stack, `prefect deployment run train/local` through a worker.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect import flow, tags
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from erv import pipeline
from erv.commands.publish import GATES_UNMET, LINEAGE_UNMET
from erv.doctor import preflight
from erv.environment import Environment, child_environment, isolate, load_environment
from erv.errors import ErvError
from erv.parameters import parse, read
from erv.pipeline import PipelineStage, StageCancelledError, StageFailedError, StageResult, Unchanged
from erv.stack.dvc_remote import write_dvc_remote
from erv.stack.outages import through_outages
from erv.stack.reach import require, unreachable
from erv.stack.stored import all_stored
from erv.tracking import experiment_page, lock_entries
from erv.tracking.description import FLOW, KIND_TAG, NOTE_TAG, Description, describe
from erv.tracking.opening import open_run
from erv.tracking.origin import COMMIT_TAG, origin_tags, who
from erv.tracking.run import StageRun
from erv.tracking.since import since
from erv.tracking.system_metrics import system_metrics
from flows import console, origin
from flows.abandoned import noted
from flows.artifacts import (
    data_docs,
    docs_note,
    prefect_may_be_away,
    show_artifacts,
    show_data_docs,
    show_links,
)
from flows.cancellation import Cancellation
from flows.drift import tell_drift
from flows.graph import RunStage, StageReport, is_done, run_graph
from flows.meanwhile import meanwhile
from flows.summary import (
    KEPT_REPORT,
    REPORT,
    Summary,
    flat_metrics,
    metrics_text,
    read_comparison,
    stage_table,
)
from flows.team import model_here, tag_of
from flows.wanted import Wanted

if TYPE_CHECKING:
    from erv.register.publish import PublishResult

WORKERS = 2
_MOST_WORKERS = 32  # threads; the flow's parameter sets how many stages run at a time


@flow(
    name="train",
    persist_result=False,
    retries=0,
    task_runner=ThreadPoolTaskRunner(max_workers=_MOST_WORKERS),  # type: ignore[arg-type]
)
def train(
    targets: list[str] | None = None,
    force: bool = False,
    workers: int = WORKERS,
    only: str | None = None,
) -> Any:
    """Brings the targets and everything they need up to date, stores the outputs, registers the candidate.

    Args:
        targets: stages (`grpo@erv`) or groups (`grpo`) of `dvc.yaml`; all of them by default.
        force: run the targets, or else all stages, even if nothing changed. What the targets need, and what
            follows from them, still runs only if DVC finds a change.
        workers: how many independent stages run in parallel.
        only: one stage to run alone, in place of targets; what it reads must be up to date.
    """
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    try:
        with (
            pipeline.one_pipeline_at_a_time(),
            noted(context.flow_run.id),
            Cancellation(context.flow_run.id) as cancellation,
        ):
            return _train(context.flow_run.id, Wanted(targets, force, only), workers, cancellation)
    except StageCancelledError as error:
        return Cancelled(message=str(error))
    except ErvError as error:
        return Failed(message=str(error))


def _train(
    flow_run_id: UUID,
    wanted: Wanted,
    workers: int,
    cancellation: Cancellation,
) -> Summary:
    logger = get_run_logger()
    environment = load_environment()
    isolate(environment)
    repaired = pipeline.repair_lock()
    if repaired is not None:
        logger.warning("%s", repaired)
    everything = pipeline.read_stages()
    needed = wanted.needed(everything)
    settings = preflight.check(environment, needed)
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
    unchanged = _ask_unchanged(environment, needed, forced, cancellation)
    stages = wanted.to_run(needed, unchanged)
    logger.info("%d stages, up to %d side by side", len(stages), workers)

    described = describe(
        environment,
        parse(read(environment.workspace)),
        candidate=settings.register_.policy,
        model=settings.register_.model_name,
        targets=wanted.names,
        started_by=_started_by(),
    )
    with _parent_run(environment, flow_run_id, described) as parent:
        repro = _stage_runner(environment, parent, flow_run_id, forced, unchanged, cancellation)
        reports = run_graph(stages, repro, workers=workers, cancelled=cancellation.asked)
        if not all(map(is_done, reports)):  # else the summary has it
            logger.info("stages:\n%s", stage_table(reports))
        with meanwhile(functools.partial(_push, environment, reports, cancellation)):
            runs = _record(environment, parent, reports)
            tell_drift(environment, settings.register_.model_name, reports, runs)
            docs = data_docs(environment, reports, runs, parent)
            parent.set_tags({NOTE_TAG: described.tags[NOTE_TAG] + docs_note(docs)})
            with prefect_may_be_away("the Data Docs"):
                show_data_docs(docs)
        _raise_for(reports, docs, cancellation)

        published, lineage, holds = _publish(environment, stages, settings, parent, cancellation)
        comparison = read_comparison() if _includes(stages, "report") else {}
        parent.log_metrics(flat_metrics(comparison))
        addresses: dict[str, str] = {}
        with prefect_may_be_away("links, tables and lineage"):
            reported = bool(comparison) and REPORT.is_file()
            addresses = show_links(environment, parent.run_id, flow_run_id, reported)
            show_artifacts(reports, comparison, runs)
        if comparison and REPORT.is_file():
            page = origin.report_with_origin(environment, settings, published, addresses, logger)
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder) / KEPT_REPORT.name
                copy.write_text(page, encoding="utf-8")
                parent.log_artifact(copy, str(KEPT_REPORT.parent))
        changed = _since(environment, described, comparison)
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


def _since(environment: Environment, described: Description, comparison: dict[str, Any]) -> list[str]:
    """What changed against earlier runs, in the metrics of the candidate on all clips."""
    mine = f"{described.tags['erv.candidate']}/overall/"
    values = {
        f"{mine}{metric}": value
        for metric in experiment_page.METRICS
        if (value := flat_metrics(comparison).get(f"{mine}{metric}")) is not None
    }
    return since(
        environment, described.references, values, origin_tags(environment.workspace).get(COMMIT_TAG)
    )


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


def _started_by() -> str | None:
    """Who started the flow run, as Prefect knows it; None if Prefect doesn't."""
    context = FlowRunContext.get()
    started = context.flow_run.created_by if context is not None and context.flow_run is not None else None
    return started.display_value if started is not None else None


def _ask_unchanged(
    environment: Environment,
    stages: Sequence[PipelineStage],
    forced: Collection[str],
    cancellation: Cancellation,
) -> Unchanged:
    pipeline.release_dead_holders()

    def import_meanwhile(_stopped: Callable[[], bool]) -> None:
        """Publishing and lineage need MLflow, whose import takes as long as DVC's answer."""
        if _includes(stages, "register"):
            importlib.import_module("mlflow")

    with meanwhile(import_meanwhile):
        return pipeline.ask_unchanged(
            stages,
            forced=forced,
            cancelled=cancellation.asked,
            environment=child_environment(environment),
        )


def _stage_runner(
    environment: Environment,
    parent: StageRun,
    flow_run_id: UUID,
    forced: Collection[str],
    unchanged: Unchanged,
    cancellation: Cancellation,
) -> RunStage:
    variables = child_environment(environment)
    variables["ERV_FLOW_RUN_ID"] = str(flow_run_id)
    if parent.run_id:
        variables["ERV_PARENT_RUN_ID"] = parent.run_id

    def run(name: str, on_line: Any) -> StageResult:
        known = unchanged.result(name)
        if known is not None:
            on_line(f"Stage '{name}' didn't change, skipping")
            return known
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


def _record(
    environment: Environment, parent: StageRun, reports: Sequence[StageReport]
) -> dict[str, str | None]:
    """Links every stage's run, new or earlier, to the parent, and stores the files that say what ran."""
    lock = pipeline.read_lock_entries()
    done = {r.name: r.outcome for r in reports if r.outcome in ("ran", "restored", "unchanged")}
    lock_entries.reconcile(environment, lock)
    runs = lock_entries.link(environment, parent, lock, done)
    for file in lock_entries.pipeline_files():
        parent.log_artifact(file, lock_entries.LOCK_ARTIFACT_FOLDER)
    parent.log_text(lock_entries.markdown(lock, runs, done), "lineage.md")
    return runs


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


def _push(
    environment: Environment,
    reports: Sequence[StageReport],
    cancellation: Cancellation,
    stopped: Callable[[], bool],
) -> None:
    """Stores every output in the remote, where that of a published version must be available.

    Nothing is stored if not every stage is up to date.
    """
    if cancellation.asked() or not all(is_done(report) for report in reports):
        return
    if not environment.has_storage:
        get_run_logger().warning("no object store is configured: outputs stay on this machine")
        return

    def cancelled() -> bool:
        return stopped() or cancellation.asked()

    def push() -> None:
        if not all_stored(environment):
            pipeline.push(
                on_line=functools.partial(get_run_logger().debug, "%s"),
                cancelled=cancelled,
                environment=child_environment(environment),
            )

    through_outages(environment, push, say=get_run_logger().warning, cancelled=cancelled)


def _publish(
    environment: Environment,
    stages: Sequence[PipelineStage],
    settings: Any,
    parent: StageRun,
    cancellation: Cancellation,
) -> tuple[PublishResult | None, list[str], bool]:
    """Makes sure that the candidate is registered and gated.

    Returns:
        Its version, its lineage as it is now, and whether that holds.
    """
    if not _includes(stages, "register"):
        return None, [], False
    from erv.lineage.gate import LineageGate, lineage_verdict
    from erv.lineage.node import brief
    from erv.register.publish import publish

    lineage = LineageGate(environment, settings)
    candidate = next(s.outputs[0] for s in stages if s.group == "register")
    result = through_outages(
        environment,
        lambda: publish(
            Path(candidate),
            environment,
            settings,
            parent_run_id=parent.run_id,
            by=_started_by() or who(environment.workspace),
            lineage=lineage,
            cancelled=cancellation.asked,
        ),
        mlflow=True,
        say=get_run_logger().warning,
    )
    parent.set_tags({"erv.model_version": f"{result.name}/{result.version}"})
    node = lineage.node(result.version, result.aliases)
    return result, brief(node), lineage_verdict(node).passed


def _includes(stages: Sequence[PipelineStage], group: str) -> bool:
    return any(stage.group == group for stage in stages)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the flow in this process.

    Returns:
        0 if it completed, 1 if it failed, 130 if it was cancelled, 3 or 4 if a requirement is not met.
    """
    parser = argparse.ArgumentParser(prog="python -m flows.train", description="Runs the train flow.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="stage or group; all by default")
    parser.add_argument("--only", metavar="STAGE", help="one stage to run alone, in place of targets")
    parser.add_argument("--force", action="store_true", help="run the targets even if nothing changed")
    parser.add_argument("--require-gates", action="store_true", help="exit with 3 unless all are passed")
    parser.add_argument("--require-lineage", action="store_true", help="exit with 4 unless it holds")
    parser.add_argument("--workers", type=int, default=WORKERS, help="stages in parallel (%(default)s)")
    options = parser.parse_args(arguments)
    console.leave_out_what_is_printed()
    url = None
    try:
        url = require("Prefect", load_environment().prefect_api_url)
        with tags(tag_of(model_here())):
            state: Any = train(
                options.targets or None, options.force, options.workers, options.only, return_state=True
            )
    except ErvError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail("interrupted; finished work is kept, run it again to resume", 130)
    except Exception:
        # The client of Prefect raises errors of several libraries; by then it has tried for a minute.
        if url is None or (fault := unreachable("Prefect", f"{url}/health")) is None:
            raise
        return _fail(f"{fault}; it was lost in mid-run, finished work is kept: run the same command again")
    if state.is_completed():
        summary = state.result()
        print(summary.text())  # noqa: T201
        if options.require_lineage and not summary.lineage_holds:
            return _fail("the lineage of the version doesn't hold, or none was registered", LINEAGE_UNMET)
        if options.require_gates and not summary.gates_passed:
            return _fail("not every gate is passed, or no version was registered", GATES_UNMET)
        return 0
    return _fail(state.message or f"the flow ended as {state.name}", 130 if state.is_cancelled() else 1)


def _fail(message: str, code: int = 1) -> int:
    print(f"error: {message}", file=sys.stderr)  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main())
