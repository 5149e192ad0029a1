"""A trial of a sweep as the sweep sees it: started in a checkout, watched, ended if it falls behind."""

from __future__ import annotations

import dataclasses
import math
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prefect.logging import get_run_logger

from erv import pipeline
from erv.environment import Environment
from erv.errors import ErvError, ExitCode
from erv.files import read_document
from erv.pipeline import StageCancelledError
from erv.stack.launch import SETTINGS
from erv.stack.outages import through_outages
from erv.sweep import tracked
from erv.sweep.begin import Begun
from erv.sweep.measures import curve_of, read_curve
from erv.sweep.study import Asked, Study, StudyAway
from erv.tracking import lock_entries
from erv.tracking.opening import PARENT_VARIABLE
from flows import below_sweep
from flows.trial import RESULT

_LOOK_SECONDS = 3.0
# From SIGTERM on: a worker elsewhere is given a while to confirm that it has stopped.
_GRACE_SECONDS = 40.0
_PLAIN = {
    "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": "%(message)s",
    "PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT": "[%(task_run_name)s] %(message)s",
}


@dataclass(frozen=True)
class Ended:
    """What came of a trial.

    Attributes:
        number: of the trial.
        state: `interrupted` if the sweep ends before it.
        value: of a finished one.
        message: why it failed, or where it was pruned.
        note: whose values it has, too.
    """

    number: int
    state: Literal["done", "pruned", "failed", "interrupted"]
    value: float | None = None
    message: str = ""
    note: str = ""


class Trials:
    """Runs the trials of a sweep. Thread-safe.

    Args:
        environment: of the clone.
        begun: the sweep.
        study: takes the values that are seen meanwhile.
        parent: the MLflow run of the sweep.
        workers: stages side by side in a trial.
        stopped: whether the sweep ends.
    """

    def __init__(
        self,
        environment: Environment,
        begun: Begun,
        study: Study,
        parent: str,
        workers: int,
        stopped: Callable[[], bool],
    ) -> None:
        self._environment, self._begun, self._study = environment, begun, study
        self._parent, self._workers, self._stopped = parent, workers, stopped
        self.attempts: dict[int, str] = {}
        self._guard = threading.Lock()
        self._turns: dict[tuple[str, ...], threading.Lock] = {}
        # By values; a sampler may suggest the same again, at the same time even.
        self._known = {
            row.overrides: Ended(row.number, row.state, row.value)
            for row in study.rows()
            if row.state in ("done", "pruned")
        }

    def run(self, one: Asked) -> Ended:
        """Runs a trial to its end, whatever that is; one with the values of an earlier one is known."""
        with self._guard:
            turn = self._turns.setdefault(one.overrides, threading.Lock())
        with turn:
            known = self._known.get(one.overrides)
            if known is not None:
                said = f"the same values as trial {known.number}"
                get_run_logger().info("%s, which was %s", said, known.state)
                return dataclasses.replace(known, number=one.number, note=said)
            ended = self._run_once(one)
            if ended.state in ("done", "pruned"):
                self._known[one.overrides] = ended
            return ended

    def _run_once(self, one: Asked) -> Ended:
        try:
            return self._run(one)
        except StageCancelledError:
            return Ended(one.number, "interrupted")
        except ErvError as error:
            if self._stopped():
                return Ended(one.number, "interrupted")
            return Ended(one.number, "failed", message=str(error))

    def _run(self, one: Asked) -> Ended:
        begun = self._begun
        folder = begun.folder.checkout(begun.plan, one.overrides, (*begun.fixed, *one.overrides))
        self.fetch(folder)
        ended = self._attempt(one, folder, force=False)
        if ended is None:
            get_run_logger().warning(
                "DVC has the result of %s, but nobody measured it on validation clips; it runs again",
                begun.plan.stage,
            )
            ended = self._attempt(one, folder, force=True) or _nothing(one, begun)
        if ended.state != "interrupted" and not begun.folder.discard(folder):
            get_run_logger().warning("%s stays until MLflow has all that is in its .erv/spool", folder)
        return ended

    def fetch(self, folder: Path) -> None:
        """Has DVC link what trials need and don't change."""
        if not self._begun.needed or (folder / ".erv" / "fetched").is_file():
            return
        code = pipeline.run_guarded(
            pipeline.dvc_command("checkout", "--quiet", *self._begun.needed),
            what="dvc checkout",
            on_line=lambda line: get_run_logger().debug("%s", line),
            cancelled=self._stopped,
            environment=self._begun.folder.variables_of(folder),
            workspace=folder,
        )
        if code == 0:  # if not, the stages fetch what they can, and say what they lack
            (folder / ".erv" / "fetched").touch()

    def start(
        self,
        folder: Path,
        number: int,
        attempt: str,
        command: list[str],
        stop: Callable[[], bool],
    ) -> tuple[int, str]:
        """Runs a Python module in a checkout, and ends it in order when asked to.

        Args:
            folder: the checkout.
            number: of the trial.
            attempt: by which its MLflow run is found.
            command: the module, which calls `flows.below_sweep.ends_in_order`, and its arguments.
            stop: whether to end it.

        Returns:
            The exit code, and what it said last.

        Raises:
            StageCancelledError: it was to end, and did not within 40 s.
        """
        more = {
            PARENT_VARIABLE: self._parent,
            tracked.SWEEP_VARIABLE: self._begun.plan.name,
            tracked.TRIAL_VARIABLE: str(number),
            tracked.ATTEMPT_VARIABLE: attempt,
        }
        if self._begun.plan.patch:
            more["ERV_PATCH"] = self._begun.plan.patch
        below_sweep.forget(folder)
        log = self._begun.folder.log(number)
        log.parent.mkdir(parents=True, exist_ok=True)
        logger, last, asked, told = get_run_logger(), [""], [0.0], [False]
        with log.open("a", encoding="utf-8") as stream:

            def on_line(line: str) -> None:
                stream.write(f"{line}\n")
                stream.flush()
                if line.strip():
                    last[0] = line
                    logger.info("%s", self._environment.mask(line))

            def overdue() -> bool:
                if not stop():
                    return False
                asked[0] = asked[0] or time.monotonic()
                told[0] = told[0] or below_sweep.ask_to_end(folder)
                return time.monotonic() - asked[0] > _GRACE_SECONDS

            code = pipeline.run_guarded(
                [sys.executable, "-m", *command],
                what=f"trial {number}",
                on_line=on_line,
                cancelled=overdue,
                environment={**self._begun.folder.variables_of(folder, **more), **SETTINGS, **_PLAIN},
                workspace=folder,
            )
        return code, last[0].removeprefix("error: ")

    def _attempt(self, one: Asked, folder: Path, *, force: bool) -> Ended | None:
        """One attempt; None if the result was known and nobody measured it."""
        begun, attempt = self._begun, uuid.uuid4().hex
        self.attempts[one.number] = attempt
        watch = _Watch(
            self._environment, begun, attempt, lambda value, step: self._study.report(one.number, value, step)
        )

        def stop() -> bool:
            watch.look()
            return watch.behind is not None or self._stopped()

        command = ["flows.trial", begun.plan.stage, "--workers", str(self._workers)]
        try:
            code, said = self.start(
                folder, one.number, attempt, [*command, *(["--force"] if force else [])], stop
            )
        except StageCancelledError:
            code, said = ExitCode.CANCELLED, ""
        if code != ExitCode.DONE:
            if watch.behind is not None:
                return Ended(one.number, "pruned", message=f"at step {watch.behind}")
            if self._stopped():
                return Ended(one.number, "interrupted")
            return Ended(
                one.number, "failed", message=said or f"ended with {code}; see {begun.folder.log(one.number)}"
            )
        result = read_document(folder / RESULT, "trial")
        value = begun.measure.value(self._points(folder, result))
        if value is None:
            return (
                None
                if not force and result["outcomes"].get(begun.plan.stage) != "ran"
                else _nothing(one, begun)
            )
        if not math.isfinite(value):
            return Ended(
                one.number,
                "failed",
                message=f"{begun.plan.stage}: {begun.measure.series} is {value}, which can't be compared",
            )
        return Ended(one.number, "done", value)

    def _points(self, folder: Path, result: Mapping[str, Any]) -> dict[int, float]:
        """The values of the finished stage by step."""
        begun = self._begun
        if begun.measure.curve is not None:
            curve = curve_of(begun.stages, begun.plan.stage)
            return {} if curve is None else read_curve(folder / curve, begun.measure.curve)
        run_id = result["runs"].get(begun.plan.stage)
        here = begun.folder.environment_of(folder)

        def ask() -> dict[int, float]:
            lock_entries.reconcile(here, {}, [])  # what an outage held back
            try:
                return tracked.points(here, run_id, begun.measure.series) if run_id else {}
            except OSError as error:
                raise ErvError(f"MLflow can't say what {begun.plan.stage} measured: {error}") from error

        return through_outages(here, ask, mlflow=True, say=get_run_logger().warning, cancelled=self._stopped)


def _nothing(one: Asked, begun: Begun) -> Ended:
    return Ended(
        one.number,
        "failed",
        message=f"{begun.plan.stage}: no {begun.measure.series} was reported; are there validation clips?",
    )


class _Watch:
    """What the stage of a trial reports while it runs."""

    def __init__(
        self,
        environment: Environment,
        begun: Begun,
        attempt: str,
        report: Callable[[float, int], bool],
    ) -> None:
        self._environment, self._begun, self._attempt, self._report = environment, begun, attempt, report
        self._looked = time.monotonic()
        self._trial: str | None = None
        self._stage: str | None = None
        self._copied: set[int] = set()
        self._seen: set[int] = set()
        self.behind: int | None = None

    def look(self) -> None:
        """Passes new values on, seldom; MLflow, or the study's file, may be away for a while."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS or self.behind is not None:
            return
        self._looked = now
        with suppress(OSError, StudyAway):
            self._look()

    def _look(self) -> None:
        plan, series = self._begun.plan, self._begun.measure.series
        self._trial = self._trial or tracked.trial_run(self._environment, self._attempt)
        if self._trial is None:
            return
        self._stage = self._stage or tracked.stage_run(self._environment, self._trial, plan.stage)
        if self._stage is None:
            return
        found = tracked.points(self._environment, self._stage, series)
        new = {step: value for step, value in sorted(found.items()) if step not in self._seen}
        if not new:
            return
        if fresh := {step: value for step, value in new.items() if step not in self._copied}:
            tracked.copy_points(self._environment, self._trial, series, fresh)
            self._copied.update(fresh)
        for step, value in new.items():
            behind = self._report(value, step)
            self._seen.add(step)  # not before: what could not be noted is noted at the next look
            if behind:
                self.behind = step
                return
