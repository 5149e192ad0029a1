"""Stages that `machine.placement` sends to a work pool: asked for, watched, and their results taken.

What is said of a worker is judged by its pulse on the board, not by Prefect: a killed worker leaves a run
pending or running for ever. Prefect hands attempts to workers, and is told of those that are lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from erv import pipeline
from erv.environment import Environment, child_environment, remedy_for
from erv.errors import StackError, StorageError
from erv.pipeline import PipelineStage, StageCancelledError, StageFailedError, StageResult
from erv.remote import ask
from erv.remote.board import Board
from erv.remote.checkpoints import stored_checkpoints
from erv.remote.commit import changes_to_carry, commit_of
from erv.remote.coordinator import coordinator_of
from erv.remote.placement import read_from
from erv.remote.request import Request
from erv.settings.machine import MachineSettings
from erv.stack.outages import through_outages
from erv.stack.pools import read_pool, worker_is_online
from erv.stack.sweep_queue import SweepQueue
from erv.tracking import lock_entries
from erv.tracking.opening import PLACED_VARIABLE, SENT_VARIABLE
from flows.attempt import LOST_IN_A_ROW, Attempt, Lost, NoPoolError, Waiting, no_pool
from flows.patience import NobodyComesError, Patience
from flows.queued import Queued
from flows.slots import Slots

POLL_SECONDS = 2.0
_MOST = 16  # stages in flight in a pool without a limit


@dataclass(frozen=True)
class Placed:
    """The stages of one flow run that are placed in work pools.

    Attributes:
        environment: of this clone.
        machine: `machine` of the settings.
        stages: all of `dvc.yaml`.
        places: the work pool of each such stage, from `erv.remote.placement.places`.
        forced: stages that run even if nothing changed.
        flow_run_id: of this flow run.
        variables: for the stages: which runs they belong to.
        cancelled: whether to stop.
        sweeping: whether this is a trial of a sweep, which leaves slots to others.
    """

    environment: Environment
    machine: MachineSettings
    stages: Sequence[PipelineStage]
    places: Mapping[str, str]
    forced: Collection[str]
    flow_run_id: str
    variables: Mapping[str, str]
    cancelled: Callable[[], bool]
    sweeping: bool = False
    _queue: SweepQueue | None = field(init=False)
    _slots: Slots = field(init=False)
    _who: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_slots", Slots(self.environment))
        queue = SweepQueue(self.environment, self.machine.placement_spare) if self.sweeping else None
        object.__setattr__(self, "_queue", queue)
        # Once, as stages run in threads of their own.
        object.__setattr__(self, "_who", coordinator_of(self.environment) if self.places else "")

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
        known = not forced and ask.restorable_here(stage, self.environment)
        if known and (restored := self._restore(stage, on_line)) is not None:
            return restored
        board, request = ask.prepare(
            self.environment,
            stage,
            read_from(stage, self.stages),
            carry=self.machine.carry_changes,
            forced_by=self.flow_run_id if forced else None,
            variables=self.variables,
            on_line=on_line,
            cancelled=self.cancelled,
        )
        if request.patch_id:
            on_line(f"WARNING: sends uncommitted changes along, as patch {request.patch_id[:12]}")
        with Waiting(board, self._who) as waiting:
            result, known = self._result(board, request, waiting, on_line)
            done = ask.take(self.environment, request, result, on_line=on_line, cancelled=self.cancelled)
            with suppress(StorageError):  # what nobody can be asked about stays
                if not board.others_wait(self._who):
                    board.tidy()
        return ask.as_restored(done) if known else done

    def _restore(self, stage: PipelineStage, on_line: Callable[[str], None]) -> StageResult | None:
        """Takes what DVC has; None if it turns out to be damaged or gone, as the stage doesn't run here."""
        variables = child_environment(self.environment) | {SENT_VARIABLE: self.places[stage.name]}
        variables.pop(PLACED_VARIABLE, None)  # left in the shell, it would let the stage run here
        try:
            return pipeline.repro(
                stage.name, on_line=on_line, cancelled=self.cancelled, pull=True, environment=variables
            )
        except StageFailedError as error:
            on_line(f"WARNING: what DVC has of it can't be restored, so it is sent ({error})")
            return None

    def _result(
        self, board: Board, request: Request, waiting: Waiting, on_line: Callable[[str], None]
    ) -> tuple[dict[str, Any], bool]:
        """The result of the stage, and whether it was there before."""
        attempt = max(1, board.newest())
        if (found := board.result(attempt)) is not None:
            if ask.is_usable(found, request, self.environment):
                on_line(f"{found.get('worker')} has run it already, for the same inputs")
                return found, True
            board.supersede(attempt, "failed before, or its outputs are gone")
        lost, furthest = 0, -1
        while True:
            if board.superseded(attempt) is not None:
                attempt += 1
                continue
            begun = str(board.begin(attempt, request.document()).get("nonce"))
            pool = self.places[request.stage]
            one = Attempt(
                self.environment,
                board,
                request,
                attempt,
                begun,
                pool,
                lost + 1,
                on_line,
                self.machine.processes_of(request.stage),
                self._queue,
            )
            try:
                return self._watch(one, request.stage, waiting, on_line), False
            except Lost as loss:
                reached = _reached(board)
                # On machines that are taken away now and then, an attempt that got further isn't in vain.
                lost, furthest = (1, reached) if reached > furthest else (lost + 1, furthest)
                if lost >= LOST_IN_A_ROW:
                    raise StageFailedError(
                        f"{request.stage}: {lost} attempts in a row were lost, the last because {loss}; look"
                        f" at the workers of pool {self.places[request.stage]!r}, and run it again: it goes"
                        " on from its last checkpoint"
                    ) from None
                on_line(f"WARNING: attempt {attempt} is lost: {loss}; another worker is asked")
            attempt += 1

    def _watch(
        self, one: Attempt, stage: str, waiting: Waiting, on_line: Callable[[str], None]
    ) -> dict[str, Any]:
        patience = Patience(self.machine.placement_wait_minutes * 60, one.pool, on_line)
        queued = Queued(self.environment, on_line)
        while True:
            if self.cancelled():
                one.cancel(waiting)
                raise StageCancelledError(f"{stage}: cancelled")
            try:
                waiting.note()
                result = one.step()
                if result is not None:
                    return result
                if one.is_queued():
                    if self._queue is not None:
                        self._queue.keep(one.pool)
                    self._slots.free(one.pool, on_line)
                    online = worker_is_online(self.environment, one.pool)
                    patience.look(online)
                    if online:
                        queued.look(one.pool)
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


def _reached(board: Board) -> int:
    """The step of the furthest checkpoint on a board; -1 if there is none, or nobody can tell."""
    try:
        stored = stored_checkpoints(board)
    except StorageError:
        return -1
    return stored[-1].step if stored else -1


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
            f"stages that run elsewhere need an object store; {remedy_for('S3', environment.workspace)}"
        )
    commit_of(environment.workspace)
    changes_to_carry(environment.workspace, carry=machine.carry_changes)
    found = {name: read_pool(environment, name) for name in sorted(pools)}
    for name, pool in found.items():
        if pool is None:
            raise no_pool(name)
    known = {name: pool.get("concurrency_limit") for name, pool in found.items() if pool is not None}
    return {name: _MOST if limit is None else max(1, min(int(limit), _MOST)) for name, limit in known.items()}
