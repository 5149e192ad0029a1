"""How a flow brings stages up to date: DVC is asked once, then each runs here or in its work pool."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from erv import pipeline
from erv.environment import Environment, child_environment
from erv.pipeline import PipelineStage, StageCancelledError, StageFailedError, StageResult, Unchanged
from erv.remote.placement import places
from erv.settings.machine import MachineSettings
from erv.stack.outages import through_outages
from erv.tracking import lock_entries
from erv.tracking.opening import PLACED_VARIABLE
from erv.tracking.run import StageRun
from flows.cancellation import Cancellation
from flows.graph import RunStage, StageReport, run_graph
from flows.meanwhile import meanwhile
from flows.placed import Placed, ready
from flows.results import includes


@dataclass(frozen=True)
class Placement:
    """Which stages run elsewhere.

    Attributes:
        machine: `machine` of the settings.
        everything: all stages of `dvc.yaml`.
        places: the work pool of each stage that has one.
        limits: how many of this flow's stages may be in flight in each pool that is needed now.
    """

    machine: MachineSettings
    everything: Sequence[PipelineStage]
    places: Mapping[str, str]
    limits: Mapping[str, int]

    @classmethod
    def of(
        cls,
        environment: Environment,
        machine: MachineSettings,
        everything: Sequence[PipelineStage],
        stages: Sequence[PipelineStage],
        unchanged: Unchanged,
    ) -> Placement:
        """Reads `machine.placement`, and checks what those of `stages` need that will be sent away.

        Raises:
            ErvError: as `flows.placed.ready`.
        """
        pools = places(everything, machine.placement)
        sent = [s.name for s in stages if s.name in pools and unchanged.result(s.name) is None]
        return cls(machine, everything, pools, ready(environment, machine, {pools[name] for name in sent}))


def ask_unchanged(
    environment: Environment,
    stages: Sequence[PipelineStage],
    forced: Collection[str],
    cancellation: Cancellation,
) -> Unchanged:
    """Asks DVC which stages need nothing, and imports meanwhile what the end of the flow needs."""
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


def bring_up_to_date(
    environment: Environment,
    stages: Sequence[PipelineStage],
    placement: Placement,
    unchanged: Unchanged,
    forced: Collection[str],
    workers: int,
    flow_run_id: UUID,
    parent: StageRun,
    cancellation: Cancellation,
    *,
    sweeping: bool = False,
) -> list[StageReport]:
    """Runs stages as tasks of this flow.

    Args:
        environment: of this clone.
        stages: each after all that it depends on.
        placement: where they run.
        unchanged: what DVC says of them.
        forced: those that run even if nothing changed.
        workers: how many run side by side here.
        flow_run_id: of this flow.
        parent: its run in MLflow.
        cancellation: says whether to stop.
        sweeping: whether this is a trial of a sweep, which waits in pools behind others.

    Returns:
        A report for every stage.
    """
    variables = _variables(flow_run_id, parent)
    placed = Placed(
        environment,
        placement.machine,
        placement.everything,
        placement.places,
        forced,
        str(flow_run_id),
        variables,
        cancellation.asked,
        sweeping,
    )
    repro = _stage_runner(environment, variables, forced, unchanged, cancellation, stages, placed)
    return run_graph(
        stages,
        repro,
        workers=workers,
        cancelled=cancellation.asked,
        stop=cancellation.stop,
        places=placement.places,
        limits=placement.limits,
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


def raise_for(reports: Sequence[StageReport], docs: Mapping[str, str], cancellation: Cancellation) -> None:
    """Ends a flow whose stages are not all up to date.

    Args:
        reports: of the stages.
        docs: addresses of Data Docs by stage.
        cancellation: whether it was cancelled.

    Raises:
        StageFailedError: a stage failed.
        StageCancelledError: the flow was cancelled.
    """
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
