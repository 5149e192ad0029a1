"""Stages that `machine.placement` sends to a work pool: asked for, watched, and their results taken.

What is said of a worker is judged by its pulse on the board, not by Prefect: a killed worker leaves a run
pending or running for ever. Prefect hands attempts to workers, and is told of those that are lost.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

from erv import pipeline
from erv.environment import Environment, child_environment, remedy_for
from erv.errors import ErvError, StackError, StorageError
from erv.pipeline import PipelineStage, StageCancelledError, StageFailedError, StageResult
from erv.remote import ask
from erv.remote.board import WAITING_SECONDS, Board
from erv.remote.commit import changes_to_carry, commit_of
from erv.remote.pulse import DEAD_SECONDS, Watched
from erv.remote.request import Request
from erv.settings.machine import MachineSettings
from erv.stack import flow_runs
from erv.stack.outages import through_outages
from erv.stack.pools import read_pool, worker_is_online
from erv.tracking import lock_entries
from flows.run_stage import NAME
from flows.slots import Slots

POLL_SECONDS = 2.0
# From the moment that a worker takes a run to its first pulse: Python, Prefect and the clone's code load.
CLAIM_SECONDS = 50.0
_ENDED_SECONDS = 8.0  # the pulse stood still for that long after Prefect said that the run has ended
_LOST_IN_A_ROW = 5
_CANCEL_SECONDS = 12.0
_REMIND_SECONDS = 300.0
_MOST = 16  # stages in flight in a pool without a limit


class Lost(Exception):
    """An attempt that no longer counts; another one is to begin."""


@dataclass(frozen=True)
class Placed:
    """The stages of one flow run that are placed in work pools.

    Attributes:
        environment: of this clone.
        machine: `machine` of the settings.
        places: the work pool of each such stage, from `erv.remote.placement.places`.
        forced: stages that run even if nothing changed.
        flow_run_id: of this flow run.
        variables: for the stages: which runs they belong to.
        cancelled: whether to stop.
    """

    environment: Environment
    machine: MachineSettings
    places: Mapping[str, str]
    forced: Collection[str]
    flow_run_id: str
    variables: Mapping[str, str]
    cancelled: Callable[[], bool]
    _slots: Slots = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_slots", Slots(self.environment))

    def run(self, stage: PipelineStage, on_line: Callable[[str], None]) -> StageResult:
        """Brings a placed stage up to date.

        Raises:
            StageFailedError: it failed, with its own error.
            StageCancelledError: this flow run was cancelled; so is the stage, unless somebody else waits too.
            ErvError: a server is away for good, or there are uncommitted changes.
        """
        started = time.monotonic()
        done = through_outages(
            self.environment,
            lambda: self._run(stage, on_line),
            say=on_line,
            cancelled=self.cancelled,
        )
        lock_entries.reconcile(self.environment, pipeline.read_lock_entries(), [stage.name])
        return StageResult(done.name, done.outcome, time.monotonic() - started)

    def _run(self, stage: PipelineStage, on_line: Callable[[str], None]) -> StageResult:
        forced = stage.name in self.forced
        if not forced and ask.restorable_here(stage, self.environment):
            return pipeline.repro(
                stage.name,
                on_line=on_line,
                cancelled=self.cancelled,
                pull=True,
                environment=child_environment(self.environment),
            )
        board, request = ask.prepare(
            self.environment,
            stage,
            carry=self.machine.carry_changes,
            forced_by=self.flow_run_id if forced else None,
            variables=self.variables,
            on_line=on_line,
            cancelled=self.cancelled,
        )
        if request.patch_id:
            on_line(f"WARNING: sends uncommitted changes along, as patch {request.patch_id[:12]}")
        with _Waiting(board) as waiting:
            result, known = self._result(board, request, waiting, on_line)
            done = ask.take(self.environment, request, result, on_line=on_line, cancelled=self.cancelled)
            if not waiting.others():
                with suppress(StorageError):
                    board.tidy()
        return ask.as_restored(done) if known else done

    def _result(
        self, board: Board, request: Request, waiting: _Waiting, on_line: Callable[[str], None]
    ) -> tuple[dict[str, Any], bool]:
        """The result of the stage, and whether it was there before."""
        attempt = max(1, board.newest())
        if (found := board.result(attempt)) is not None:
            if ask.is_usable(found, request, self.environment):
                on_line(f"{found.get('worker')} has run it already, for the same inputs")
                return found, True
            board.supersede(attempt, "failed before, or its outputs are gone")
        lost = 0
        while True:
            if board.superseded(attempt) is not None:
                attempt += 1
                continue
            board.begin(attempt, request.document())
            try:
                return self._watch(board, request, attempt, waiting, on_line), False
            except Lost as loss:
                lost += 1
                if lost >= _LOST_IN_A_ROW:
                    raise StageFailedError(
                        f"{request.stage}: {lost} attempts in a row were lost, the last because {loss}; look"
                        f" at the workers of pool {self.places[request.stage]!r}, and run it again: it goes"
                        " on from its last checkpoint"
                    ) from None
                on_line(f"WARNING: attempt {attempt} is lost: {loss}; another worker is asked")
            attempt += 1

    def _watch(
        self,
        board: Board,
        request: Request,
        attempt: int,
        waiting: _Waiting,
        on_line: Callable[[str], None],
    ) -> dict[str, Any]:
        one = _Attempt(self.environment, board, request, attempt, self.places[request.stage], on_line)
        patience = Patience(self.machine.placement_wait_minutes * 60, one.pool, on_line)
        while True:
            if self.cancelled():
                one.cancel(waiting)
                raise StageCancelledError(f"{request.stage}: cancelled")
            try:
                waiting.note()
                result = one.step()
                if result is not None:
                    return result
                if one.is_queued():
                    self._slots.free(one.pool, on_line)
                    patience.look(worker_is_online(self.environment, one.pool))
                else:
                    patience.reset()
            except NobodyComesError:
                one.cancel(waiting)
                raise
            except NoPoolError:
                raise
            except (StorageError, StackError) as error:
                one.away(error)
            time.sleep(POLL_SECONDS)


class NobodyComesError(StackError):
    """No worker serves the pool."""


class NoPoolError(StackError):
    """Prefect has no such pool."""


class Patience:
    """How long a stage waits in a pool that no worker serves.

    Args:
        seconds: before it is given up.
        pool: its name.
        on_line: takes a warning.
    """

    def __init__(self, seconds: float, pool: str, on_line: Callable[[str], None]) -> None:
        self._seconds, self._pool, self._on_line = seconds, pool, on_line
        self._since: float | None = None
        self._told: float | None = None

    def reset(self) -> None:
        """Somebody has come."""
        self._since = self._told = None

    def look(self, online: bool) -> None:
        """Warns, seldom, if nobody is there.

        Raises:
            NobodyComesError: nobody has come for too long.
        """
        if online:
            self.reset()
            return
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        remedy = f"start `erv run --worker --pool {self._pool}` on a machine that is to do it"
        if now - self._since > self._seconds:
            raise NobodyComesError(
                f"no worker has served work pool {self._pool!r} for {self._seconds / 60:.0f} minutes"
                f" (machine.placement_wait_minutes); {remedy}, then run the same command again"
            )
        if self._told is None or now - self._told > _REMIND_SECONDS:
            self._told = now
            self._on_line(f"WARNING: no worker serves work pool {self._pool!r}; {remedy}")


class _Waiting:
    """This coordinator's note on a board, as long as the block runs."""

    def __init__(self, board: Board) -> None:
        self._board, self._id = board, uuid.uuid4().hex
        self._noted: float | None = None

    def __enter__(self) -> _Waiting:
        self.note()
        return self

    def __exit__(self, *_error: object) -> None:
        with suppress(StorageError):
            self._board.leave(self._id)

    def note(self) -> None:
        """Keeps the note fresh."""
        now = time.monotonic()
        if self._noted is None or now - self._noted > WAITING_SECONDS / 4:
            self._board.wait(self._id)
            self._noted = now

    def others(self) -> bool:
        """Whether another coordinator waits too; True if nobody can tell."""
        try:
            return self._board.others_wait(self._id)
        except StorageError:
            return True


class _Attempt:
    """One attempt at a stage, as its coordinator sees it."""

    def __init__(
        self,
        environment: Environment,
        board: Board,
        request: Request,
        attempt: int,
        pool: str,
        on_line: Callable[[str], None],
    ) -> None:
        self._environment, self._board, self._request = environment, board, request
        self._attempt, self.pool, self._on_line = attempt, pool, on_line
        self._pulse, self._claim, self._end = Watched(), Watched(), Watched()
        self._run: flow_runs.FlowRun | None = None
        self._pieces = 0
        self._away: str | None = None
        self._worker: str | None = None

    def _ask(self) -> flow_runs.FlowRun:
        """Has Prefect hand the attempt to a worker; of several coordinators, all get the same flow run.

        Raises:
            NoPoolError: there is no deployment for the pool.
            StackError: Prefect can't be reached.
        """
        key = self._board.key
        parameters = {
            "stage": self._request.stage,
            "key": key,
            "attempt": self._attempt,
            "bucket": self._request.bucket,
            "pool": self.pool,
        }
        name = f"{self._request.stage} {key[:8]} #{self._attempt}"
        once = f"{self._request.bucket}:{key}:{self._attempt}"
        run = flow_runs.start(self._environment, f"{NAME}/{self.pool}", parameters, name=name, once=once)
        if run is None:
            raise no_pool(self.pool)
        self._on_line(f"asked work pool {self.pool!r} for it (flow run {run.id})")
        return run

    def is_queued(self) -> bool:
        """Whether no worker has it yet."""
        return self._worker is None and self._run is not None and self._run.state == "SCHEDULED"

    def step(self) -> dict[str, Any] | None:
        """Looks once.

        Returns:
            The result; None as long as there is none.

        Raises:
            Lost: the attempt no longer counts.
            StorageError: the board can't be read.
            StackError: Prefect can't be asked, and the board doesn't say enough.
        """
        pulse = self._board.pulse(self._attempt)
        if pulse is not None:
            self._tell(pulse)
        still = self._pulse.look(None if pulse is None else int(pulse.get("count", 0)))
        over = still > DEAD_SECONDS or (pulse is not None and bool(pulse.get("ended")))
        if over and (result := self._board.result(self._attempt)) is not None:
            return result
        if (reason := self._board.superseded(self._attempt)) is not None:
            raise Lost(reason)
        if pulse is not None and still > DEAD_SECONDS:
            self._lose(f"{self._worker} has given no sign of life for {still:.0f} s")
        run = self._run = self._looked_at()
        self._back()
        if run.ended:
            # The result, or the last pulse, may be a moment behind.
            if (result := self._board.result(self._attempt)) is not None:
                return result
            if self._end.look(None if pulse is None else int(pulse.get("count", 0))) > _ENDED_SECONDS:
                self._ended(run)
        elif (
            pulse is None
            and run.state in flow_runs.HOLDING
            and self._claim.look(0) > CLAIM_SECONDS * self._attempt
        ):
            self._lose("a worker took it and never began")
        return None

    def _looked_at(self) -> flow_runs.FlowRun:
        if self._run is None:
            return self._ask()
        run = flow_runs.look(self._environment, self._run.id)
        return run if run is not None else self._lose("its flow run was deleted")

    def _ended(self, run: flow_runs.FlowRun) -> None:
        if run.state == "CANCELLED":
            self._board.supersede(self._attempt, "cancelled in Prefect")
            raise StageFailedError(
                f"{self._request.stage}: its run in work pool {self.pool!r} was cancelled in Prefect; run the"
                " same command again"
            )
        self._lose(f"its flow run ended as {run.state.lower()} ({run.message or 'no reason is known'})")

    def _lose(self, reason: str) -> NoReturn:
        """Gives the attempt up, so that its worker stops should it wake up.

        Raises:
            Lost: always.
        """
        self._board.supersede(self._attempt, reason)
        if self._run is not None and not self._run.ended:
            with suppress(StackError):
                flow_runs.set_state(self._environment, self._run.id, "CRASHED", reason, force=True)
        raise Lost(reason)

    def cancel(self, waiting: _Waiting) -> None:
        """Passes a cancellation on, unless somebody else waits for the stage; waits until it is over."""
        if waiting.others():
            self._on_line("somebody else waits for it too, so it goes on there")
            return
        run = self._run
        if run is None:
            return
        with suppress(ErvError):
            self._board.supersede(self._attempt, "cancelled by who asked for it")
        with suppress(ErvError):
            queued = run.state == "SCHEDULED"
            state, message = "CANCELLED" if queued else "CANCELLING", "cancelled by who asked for it"
            flow_runs.set_state(self._environment, run.id, state, message, force=queued)
            until = time.monotonic() + _CANCEL_SECONDS
            while time.monotonic() < until:
                now = flow_runs.look(self._environment, run.id)
                if now is None or now.ended:
                    return
                time.sleep(POLL_SECONDS / 4)
        self._on_line("WARNING: its worker has not yet confirmed that it has stopped")

    def away(self, error: ErvError) -> None:
        """Tells once that a server is away; the attempt goes on meanwhile."""
        if self._away is None:
            self._away = str(error)
            self._on_line(f"WARNING: {error}; the stage goes on, waiting")

    def _back(self) -> None:
        if self._away is not None:
            self._away = None
            self._on_line("all servers answer again")

    def _tell(self, pulse: Mapping[str, Any]) -> None:
        """Passes on what the stage has printed since the last look."""
        if self._worker is None:
            self._worker = str(pulse.get("worker"))
            self._on_line(f"runs on {self._worker}")
        while self._pieces < int(pulse.get("pieces", 0)):
            text = self._board.read_log(self._attempt, self._pieces + 1)
            self._pieces += 1
            for line in (text or "").splitlines():
                self._on_line(line)


def ready(environment: Environment, machine: MachineSettings, pools: Collection[str]) -> dict[str, int]:
    """Checks what placed stages need before anything runs that they wait for.

    Args:
        environment: of this clone.
        machine: `machine` of the settings.
        pools: those that stages will be sent to; nothing is checked if there are none.

    Returns:
        How many stages this flow run may have in flight in each: as many as the pool runs at a time, so that
        those of others come in between.

    Raises:
        CommitError: there are uncommitted changes, which `machine` doesn't carry.
        StackError: there is no such pool, no store, or Prefect can't be reached.
    """
    if not pools:
        return {}
    if not environment.has_storage:
        raise StackError(
            f"machine.placement needs an object store; {remedy_for('S3', environment.workspace)}"
        )
    commit_of(environment.workspace)
    changes_to_carry(environment.workspace, carry=machine.carry_changes)
    found = {name: read_pool(environment, name) for name in sorted(pools)}
    for name, pool in found.items():
        if pool is None:
            raise no_pool(name)
    known = {name: pool.get("concurrency_limit") for name, pool in found.items() if pool is not None}
    return {name: _MOST if limit is None else max(1, min(int(limit), _MOST)) for name, limit in known.items()}


def no_pool(name: str) -> NoPoolError:
    """What to do about a pool that Prefect doesn't have."""
    return NoPoolError(
        f"machine.placement names work pool {name!r}, which Prefect doesn't have; `erv run --worker --pool"
        f" {name}` on the machine that is to serve it makes it"
    )
