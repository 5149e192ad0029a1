"""The sweep flow: trials with other parameters, compared on validation clips; the best is proposed.

`erv sweep run` starts it (`python -m flows.sweep PARAMETERS`), `prefect deployment run sweep/local` through a
worker. The clone stays as it is: trials run in checkouts of their own.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

from prefect import flow, tags, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from erv.environment import Environment, isolate, load_environment
from erv.errors import ErvError, ExitCode
from erv.pipeline import StageCancelledError
from erv.stack.one_origin import check_servers
from erv.stack.reach import require
from erv.sweep.begin import Begun, begin, check
from erv.sweep.errors import SweepError
from erv.sweep.extent import Extent, save_extent
from erv.sweep.folder import Folder
from erv.sweep.options import MOST_AT_A_TIME, MOST_TRIALS, NAME, Direction, Metric, Sampler
from erv.sweep.space import EXAMPLES, FORM
from erv.sweep.study import Asked, Row, Study, StudyAway
from erv.sweep.tracked import SweepRun
from erv.sweep.wish import Wish
from erv.tracking.origin import who
from flows import console
from flows.abandoned import noted
from flows.artifacts import prefect_may_be_away
from flows.at_work import AtWork
from flows.cancellation import Cancellation
from flows.console import leave_out_empty_failures
from flows.ending import ending
from flows.form import Override, StageName, Workers
from flows.one_trial import Ended, Trials
from flows.proposal import propose_best
from flows.sweep_shown import Outcome, show
from flows.team import model_here, run_by, tag_of
from flows.workspace import in_workspace

_POLL_SECONDS = 0.5

SweepName = Annotated[str, Field(pattern=NAME, examples=["beta-1"])]
Varied = Annotated[str, Field(json_schema_extra={"pattern": FORM, "examples": list(EXAMPLES)})]
TrialCount = Annotated[int, Field(ge=0, le=MOST_TRIALS)]
AtATime = Annotated[int, Field(ge=0, le=MOST_AT_A_TIME)]
YesOrNo = Literal["", "yes", "no"]


@flow(
    name="sweep",
    persist_result=False,
    retries=0,
    task_runner=ThreadPoolTaskRunner(max_workers=MOST_AT_A_TIME),  # type: ignore[arg-type]
)
def sweep(
    name: SweepName,
    over: Sequence[Varied] = (),
    trials: TrialCount = 0,
    at_a_time: AtATime = 0,
    stage: StageName = "",
    metric: Literal["", Metric] = "",
    direction: Literal["", Direction] = "",
    overrides: Sequence[Override] = (),
    seed: Annotated[int, Field(ge=-1)] = -1,
    sampler: Literal["", Sampler] = "",
    prune: YesOrNo = "",
    prune_after: TrialCount = 0,
    most_failed: Annotated[int, Field(ge=-1)] = -1,
    propose: YesOrNo = "",
    workers: Workers = 1,
) -> Any:
    """Tries parameters, each trial in a checkout of its own, and proposes the best as challenger.

    Args:
        name: of the sweep. One that was interrupted goes on under its name: finished trials stay.
        over: the parameters to vary, as NAME=LOW:HIGH, NAME=LOW:HIGH:log or NAME=A,B,C
            (`grpo.beta=0.01:0.2:log`). None: go on with the sweep of that name as it began.
        trials: how many there are to be in all, those that failed or were pruned included. 0: as many as when
            it was last started, or 20.
        at_a_time: how many run at the same time. Only with 1 does the same seed suggest the same. 0: as
            before, or 1.
        stage: the stage whose validation clips decide (`grpo@erv`); that of register.policy by default.
        metric: what decides; of grpo accuracy (the usual) or reward, of sft and train_erv loss.
        direction: whether more or less of it is better; as the metric asks for by default.
        overrides: single parameters that all trials have, as NAME=VALUE (`grpo.max_steps=40`).
        seed: of the suggestions. -1: as it began, or 0.
        sampler: tpe learns from finished trials what to try next; random doesn't. Empty: as it began, or tpe.
        prune: whether a trial is ended that is worse than the median of the others at the same step. Empty:
            as it began, or yes.
        prune_after: how many trials have to be finished before one is ended. 0: as it began, or 4.
        most_failed: how many trials may fail; one more ends the sweep. -1: as before, or 3.
        propose: whether the best goes through the rest of the pipeline, is evaluated, and registered with its
            gates. Empty: as before, or yes.
        workers: how many independent stages of a trial run in parallel on this machine.
    """
    wish = Wish(
        name,
        over,
        trials,
        at_a_time,
        stage,
        metric,
        direction,
        overrides,
        seed,
        sampler,
        prune,
        prune_after,
        most_failed,
        propose,
        workers,
    )

    def work(flow_run_id: UUID, cancellation: Cancellation) -> Any:
        environment = load_environment()
        isolate(environment)
        check_servers(environment)
        require("MLflow", environment.mlflow_uri, environment.workspace)
        folder = Folder(environment, name)
        if not folder.path.exists():  # a fault shall leave none
            check(environment, wish)
        with folder.alone(), noted(flow_run_id, folder.path / "flow_run"):
            begun = begin(environment, folder, wish, cancelled=cancellation.asked)
            save_extent(begun.extent, folder.path)
            run = SweepRun(environment, folder.path, begun.plan)
            run.open()
            try:
                outcome = Sweep(environment, begun, run, workers, cancellation).run(begun.extent)
                if begun.extent.propose:
                    outcome = propose_best(environment, begun, run, outcome, workers, cancellation)
            except StageCancelledError:
                run.close("KILLED")
                raise
            except Exception:
                run.close("FAILED")
                raise
            except BaseException:  # SIGTERM or Ctrl-C
                run.close("KILLED")
                raise
            run.close("FINISHED")
            get_run_logger().info("%s", outcome.text(), extra=console.PRINTED)
            return Completed(message=outcome.brief(), data=outcome.text())

    return in_workspace(work, alone=False)


class Sweep:
    """The trials of a sweep, so many at a time.

    Args:
        environment: of the clone.
        begun: the sweep.
        run: its run in MLflow.
        workers: stages side by side in a trial.
        cancellation: says whether to stop.
    """

    def __init__(
        self, environment: Environment, begun: Begun, run: SweepRun, workers: int, cancellation: Cancellation
    ) -> None:
        self._begun, self._run, self._cancellation = begun, run, cancellation
        self._study = Study(begun.folder.path, begun.plan)
        self._ending = threading.Event()
        self._trials = Trials(environment, begun, self._study, run.run_id, workers, self._stopped)

    def run(self, extent: Extent) -> Outcome:
        """Runs what is left of so many trials.

        Raises:
            StageCancelledError: the sweep was cancelled; it goes on where it was.
            SweepError: too many trials failed, or none was finished.
            StudyAway: the file of the trials can't be used; what isn't in it is told.
        """
        leave_out_empty_failures()
        logger = get_run_logger()
        for number in self._study.requeue():
            logger.info("trial %d was interrupted; it goes on", number)
        try:
            with AtWork(self._ending.set) as at_work:  # what trials find now isn't noted: they go on later
                self._run_all(extent, at_work)
        finally:
            with suppress(StudyAway):  # it has ended the sweep, or does so below
                self._run.tell_trials(self._study.rows(), self._trials.attempts)
                with prefect_may_be_away("the table of trials"):
                    show(self._study.rows(at_work=False), self._begun.plan)
        rows = self._study.rows()
        if self._cancellation.asked():
            raise StageCancelledError(
                f"cancelled; `erv sweep run {self._begun.plan.name}` goes on with it, finished trials stay"
            )
        failed = [row for row in rows if row.state == "failed"]
        if len(failed) > extent.most_failed:
            raise SweepError(self._too_many(failed, extent.most_failed))
        best = self._study.best()
        if best is None:
            raise SweepError(self._none_finished(rows, failed))
        outcome = Outcome(self._begun.plan, rows, best)
        self._run.tell_best(best, outcome.markdown())
        return outcome

    def _run_all(self, extent: Extent, at_work: AtWork) -> None:
        running: dict[int, PrefectFuture[Any]] = {}
        finished: queue.SimpleQueue[int] = queue.SimpleQueue()
        failed = sum(row.state == "failed" for row in self._study.rows())
        while True:
            if failed > extent.most_failed:
                self._ending.set()
            while (
                not self._stopped()
                and len(running) < extent.at_a_time
                and self._study.settled() + len(running) < extent.trials
            ):
                one = self._study.ask()
                future = _as_task(one, self._trials, at_work).submit()
                future.add_done_callback(lambda _future, number=one.number: finished.put(number))
                running[one.number] = future
            if not running:
                return
            try:
                number = finished.get(timeout=_POLL_SECONDS)  # short, so that signals reach this thread
            except queue.Empty:
                continue
            failed += self._settle(number, running.pop(number)) == "failed"

    def _settle(self, number: int, future: PrefectFuture[Any]) -> str:
        """Has the study know what came of a trial."""
        ended = _ended(number, future)
        if ended.state == "done":
            assert ended.value is not None
            self._study.done(number, ended.value, ended.note)
        elif ended.state == "pruned":
            self._study.pruned(number, ended.note)
        elif ended.state == "failed":
            self._study.failed(number, ended.message)
        self._run.tell_trials(self._study.rows(), self._trials.attempts)
        return ended.state

    def _stopped(self) -> bool:
        return self._cancellation.asked() or self._ending.is_set()

    def _none_finished(self, rows: Sequence[Row], failed: Sequence[Row]) -> str:
        name = self._begun.plan.name
        said = f"sweep {name!r}: no trial finished"
        if not failed:
            return f"{said}, so none is best; give more trials (--trials) or other values"
        last = failed[-1]
        return (
            f"{said} ({len(failed)} failed); the last, {' '.join(last.overrides)}, failed because"
            f" {last.message}; mend that, and `erv sweep run {name} --trials {2 * len(rows)}` goes on"
        )

    def _too_many(self, failed: Sequence[Row], most: int) -> str:
        last = failed[-1]
        return (
            f"sweep {self._begun.plan.name!r}: {len(failed)} trials failed, more than the {most} that may"
            f" (--most-failed), the last, {' '.join(last.overrides)}, because {last.message}; mend that, and"
            f" `erv sweep run {self._begun.plan.name} --most-failed {len(failed) + most}` goes on"
        )


def _as_task(one: Asked, trials: Trials, at_work: AtWork) -> Any:
    @task(
        name="trial",
        task_run_name=f"trial {one.number}",
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=0,
        log_prints=False,
    )
    def trial() -> Any:
        logger = get_run_logger()
        logger.info("%s", " ".join(one.overrides))
        try:
            with at_work.task():
                ended = trials.run(one)
        except StageCancelledError:
            ended = Ended(one.number, "interrupted")
        if ended.state == "failed":
            logger.error("%s", ended.message)
            return Failed(message=ended.message, data=ended)
        if ended.state == "interrupted":
            return Cancelled(message="the sweep ended before it", data=ended)
        if ended.state == "pruned":
            logger.info("pruned %s", ended.message)
            return Completed(message=f"pruned {ended.message}", data=ended)
        logger.info("%s", ended.value)
        return Completed(message=f"{ended.value}", data=ended)

    return trial


def _ended(number: int, future: PrefectFuture[Any]) -> Ended:
    """What came of a trial; a task that Prefect ended otherwise has failed."""
    future.wait()
    found = future.state.result(raise_on_failure=False)
    if isinstance(found, Ended):
        return found
    return Ended(number, "failed", message=future.state.message or f"ended as {future.state.name}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the flow in this process; the argument is a JSON object with its parameters.

    Returns:
        An exit code of `erv.errors.EXIT_CODES`.
    """
    (given,) = sys.argv[1:] if arguments is None else arguments
    console.leave_out_what_is_printed()
    workspace = Path.cwd()
    try:
        with tags(tag_of(model_here()), run_by(who(workspace), workspace)):
            state: Any = sweep(**json.loads(given), return_state=True)
    except ErvError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail(console.INTERRUPTED, ExitCode.CANCELLED)
    if state.is_completed():
        print(state.result())  # noqa: T201
        return ExitCode.DONE
    return _fail(*ending(state))


def _fail(message: str, code: ExitCode) -> int:
    print(f"error: {message}", file=sys.stderr)  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main())
