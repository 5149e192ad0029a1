"""The DVC graph as Prefect tasks: one per stage, started as soon as its inputs are ready."""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Failed

from erv.errors import ErvError
from erv.pipeline import PipelineStage, StageCancelledError, StageResult
from flows.at_work import AtWork
from flows.console import leave_out_empty_failures

RunStage = Callable[[str, Callable[[str], None]], StageResult]
_POLL_SECONDS = 0.5
_NEEDS = "needs "


@dataclass(frozen=True)
class StageReport:
    """What became of a stage in this flow run.

    Attributes:
        name: the stage.
        outcome: what became of it.
        seconds: wall time; None if it was not started.
        message: why it failed or was cancelled; for one that was not run, which failed stages it needs.
    """

    name: str
    outcome: Literal["ran", "restored", "unchanged", "failed", "cancelled", "not run"]
    seconds: float | None = None
    message: str = ""


def run_graph(
    stages: Sequence[PipelineStage],
    repro: RunStage,
    *,
    workers: int,
    cancelled: Callable[[], bool],
    stop: Callable[[], None],
    places: Mapping[str, str] | None = None,
    limits: Mapping[str, int] | None = None,
) -> list[StageReport]:
    """Runs `stages` in parallel, at most `workers` at a time, each after everything it depends on.

    Those that run elsewhere don't count: each place has a limit of its own.

    Of the stages that are ready, the one with the longest chain of stages behind it starts first, because the
    end of the flow waits for that chain.

    A failed stage holds up only what needs its outputs: the other arms of a comparison are trained and
    evaluated all the same. After a cancellation no stage is started; running ones may finish.

    Args:
        stages: the stages, each after its upstream.
        repro: takes a name and a callback for lines of output; raises `ErvError` if the stage fails.
        workers: how many stages run at the same time on this machine.
        cancelled: whether to stop; `repro` looks at the same switch.
        stop: sets that switch. Whatever ends this, no stage is at work afterwards.
        places: where stages run that don't run on this machine.
        limits: how many run at the same time in each place.

    Returns:
        A report for every stage, in the order of `stages`.
    """
    leave_out_empty_failures()
    elsewhere = places or {}
    names = {stage.name for stage in stages}
    urgent = most_urgent_first(stages)
    futures: dict[str, PrefectFuture[Any]] = {}
    reports: dict[str, StageReport] = {}
    finished: queue.SimpleQueue[str] = queue.SimpleQueue()
    stopped = False

    def ready(stage: PipelineStage) -> bool:
        needed = [up for up in stage.upstream if up in names]
        return stage.name not in futures and all(up in reports and is_done(reports[up]) for up in needed)

    def fits(stage: PipelineStage) -> bool:
        running = [elsewhere.get(name) for name in futures if name not in reports]
        return has_room(elsewhere.get(stage.name), running, workers, limits or {})

    with AtWork(stop) as at_work:
        while True:
            for stage in () if stopped or cancelled() else urgent:
                if ready(stage) and fits(stage):
                    upstream = [futures[up] for up in stage.upstream if up in names]
                    future = _as_task(stage.name, repro, at_work).submit(wait_for=upstream)
                    future.add_done_callback(lambda _future, name=stage.name: finished.put(name))
                    futures[stage.name] = future
            if len(futures) == len(reports):
                break
            try:
                name = finished.get(timeout=_POLL_SECONDS)  # short, so that signals reach this thread
            except queue.Empty:
                continue
            reports[name] = _report(name, futures[name])
            stopped = stopped or reports[name].outcome == "cancelled"
    for stage in stages:
        if stage.name not in reports:
            reports[stage.name] = StageReport(stage.name, "not run", message=held_up(stage, reports))
    return [reports[stage.name] for stage in stages]


def has_room(
    place: str | None, running: Sequence[str | None], workers: int, limits: Mapping[str, int]
) -> bool:
    """Whether one more stage may start in a place.

    Args:
        place: where it would run; None for this machine.
        running: the places of the stages that run.
        workers: how many stages run at the same time on this machine.
        limits: how many run at the same time elsewhere.
    """
    return running.count(place) < (workers if place is None else limits.get(place, 1))


def is_done(report: StageReport) -> bool:
    """Whether the stage is up to date: its outputs are what its inputs ask for."""
    return report.outcome in ("ran", "restored", "unchanged")


def held_up(stage: PipelineStage, reports: Mapping[str, StageReport]) -> str:
    """Which failed stages a stage needs, directly or through others: `needs grpo@a`; empty if none.

    Args:
        stage: it was not run.
        reports: of all stages before it.
    """
    failed: list[str] = []
    for up in stage.upstream:
        report = reports.get(up)
        if report is not None and report.outcome == "failed":
            failed.append(up)
        elif report is not None and report.outcome == "not run":
            failed += report.message.removeprefix(_NEEDS).split(", ") if report.message else []
    return f"{_NEEDS}{', '.join(dict.fromkeys(failed))}" if failed else ""


def most_urgent_first(stages: Sequence[PipelineStage]) -> list[PipelineStage]:
    """The stages by the length of the longest chain that waits for them, then by that of the one before them.

    Args:
        stages: the stages, each after its upstream.
    """
    behind = {stage.name: 0 for stage in stages}
    before = dict(behind)
    for stage in stages:
        before[stage.name] = max((before[up] + 1 for up in stage.upstream if up in before), default=0)
    for stage in reversed(stages):
        for up in stage.upstream:
            if up in behind:
                behind[up] = max(behind[up], behind[stage.name] + 1)
    return sorted(stages, key=lambda stage: (-behind[stage.name], -before[stage.name]))


def _as_task(name: str, repro: RunStage, at_work: AtWork) -> Any:
    @task(
        name=name,
        task_run_name=name,
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=0,
        log_prints=False,
    )
    def stage() -> Any:
        logger = get_run_logger()

        def on_line(line: str) -> None:
            if line.strip():
                logger.info("%s", line)

        try:
            with at_work.task():
                return repro(name, on_line)
        except StageCancelledError as error:
            return Cancelled(message=str(error))
        except ErvError as error:
            # A state, not an exception: Prefect would print our own call stack above the stage's message.
            return Failed(message=str(error))

    return stage


def _report(name: str, future: PrefectFuture[Any]) -> StageReport:
    future.wait()
    state = future.state
    if state.is_completed():
        result: StageResult = future.result()
        return StageReport(name, result.outcome, result.seconds)
    if state.is_cancelled():
        return StageReport(name, "cancelled", message=state.message or "")
    return StageReport(name, "failed", message=state.message or f"{name}: ended as {state.name}")
