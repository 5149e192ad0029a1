"""One attempt at a placed stage, as its coordinator sees it: asked for, watched, given up or cancelled."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from erv.environment import Environment
from erv.errors import ErvError, StackError, StorageError
from erv.pipeline import StageFailedError
from erv.remote.board import WAITING_SECONDS, Board
from erv.remote.pulse import DEAD_SECONDS, Watched
from erv.remote.request import Request
from erv.stack import flow_runs
from erv.stack.pools import is_kubernetes, job_variables_of, read_pool
from erv.stack.reach import unreachable
from erv.stack.sweep_queue import QUEUE, SweepQueue
from erv.storage.errors import is_unanswered
from flows.run_stage import NAME

# From the moment that a worker takes a run to its first pulse: Python, Prefect and the clone's code load.
CLAIM_SECONDS = 50.0
# The same in a pool of Kubernetes, where a pod may wait for a GPU, for a node that is started for it, and for
# an image of gigabytes. Prefect's worker there puts into the log of the run what keeps the pod from starting.
POD_SECONDS = 3600.0
# So many attempts in a row may be lost without getting further. Each gives its worker more time to start than
# the one before.
LOST_IN_A_ROW = 5
REFUSED_SECONDS = 300.0  # for which a server that answers may refuse, as while its keys are changed
REMIND_SECONDS = 300.0  # between two warnings that a server is away
_ENDED_SECONDS = 8.0  # the pulse stood still for that long after Prefect said that the run has ended
_CANCEL_SECONDS = 12.0
_PAUSE_SECONDS = 0.5
_CANCELLED = "cancelled by who asked for it"


@dataclass
class Away:
    """A server that can't be asked.

    Attributes:
        since: when that was first so, by `time.monotonic`.
        told: when it was last said.
        refuses: since when it has answered, but not with what was asked for; None if it doesn't answer.
    """

    since: float
    told: float
    refuses: float | None = None


class Lost(Exception):
    """An attempt that no longer counts; another one is to begin."""


class NoPoolError(StackError):
    """Prefect has no such pool."""


def no_pool(name: str) -> NoPoolError:
    """What to do about a pool that Prefect doesn't have."""
    return NoPoolError(
        f"a stage is placed in work pool {name!r}, which Prefect doesn't have; `erv run --worker --pool"
        f" {name}` on the machine that is to serve it makes it"
    )


class Waiting:
    """This coordinator's note on a board, as long as the block runs.

    Args:
        board: of the stage.
        who: waits, from `erv.remote.coordinator`.
    """

    def __init__(self, board: Board, who: str) -> None:
        self._board, self._id = board, who
        self._noted: float | None = None
        self._others = False

    def __enter__(self) -> Waiting:
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
            self.others()  # without an error: a note that is left there counts as somebody who waits

    def others(self) -> bool:
        """Whether another coordinator waits too; while the store is away, whether one did before.

        If it is away here alone, somebody may have come unseen; a cancellation then costs them an attempt.
        """
        with suppress(StorageError):
            self._others = self._board.others_wait(self._id)
        return self._others


class Attempt:
    """One attempt at a stage, as its coordinator sees it.

    Args:
        environment: of this clone.
        board: of the stage.
        request: what is asked for.
        attempt: its number.
        begun: the nonce of the request by which it began, which all who wait for it have in common.
        pool: where it is to run.
        starts: how many workers have been asked by now; each gets more time to start than the one before.
        on_line: takes lines.
        processes: how many processes the stage is made of, each with a GPU of its own.
        queue: of sweeps, whose trials wait behind others; None for the usual one.
    """

    def __init__(
        self,
        environment: Environment,
        board: Board,
        request: Request,
        attempt: int,
        begun: str,
        pool: str,
        starts: int,
        on_line: Callable[[str], None],
        processes: int = 1,
        queue: SweepQueue | None = None,
    ) -> None:
        self._queue = queue
        self._environment, self._board, self._request = environment, board, request
        self._begun = begun
        self._processes = processes
        self._pods = False
        self._attempt, self.pool, self._on_line = attempt, pool, on_line
        self._starts = starts
        self._pulse, self._claim, self._end = Watched(), Watched(), Watched()
        self._id = uuid.uuid4().hex
        self._run: flow_runs.FlowRun | None = None
        self._pieces = 0
        self._away: Away | None = None
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
        # The board may have been removed as old, or the bucket be a new one; Prefect forgets no run.
        once = f"{self._request.bucket}:{key}:{self._attempt}:{self._begun}"
        if self._queue is not None:
            self._queue.keep(self.pool)
        run = flow_runs.start(
            self._environment,
            f"{NAME}/{self.pool}",
            parameters,
            name=name,
            once=once,
            asked_by=self._id,
            job_variables=self._job_variables(),
            queue=None if self._queue is None else QUEUE,
        )
        if run is None:
            raise no_pool(self.pool)
        theirs = str(run.parameters.get("pool", self.pool))
        if theirs != self.pool:
            self._on_line(f"somebody else has asked work pool {theirs!r} for it, in place of {self.pool!r}")
            self.pool = theirs
            self._pods = is_kubernetes(read_pool(self._environment, theirs))
        if run.asked_by == self._id:
            self._on_line(f"asked work pool {self.pool!r} for it (flow run {run.id})")
        else:
            self._on_line(f"waits for flow run {run.id}, which is in work pool {self.pool!r} already")
        return run

    def _job_variables(self) -> dict[str, int]:
        """What a pod needs for this stage beyond what its pool gives each: a GPU per process."""
        pool = read_pool(self._environment, self.pool)
        if pool is None or not is_kubernetes(pool):
            return {}
        self._pods = True
        wanted = self._processes > 1 and "gpus" in job_variables_of(pool)
        return {"gpus": self._processes} if wanted else {}

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
        elif pulse is None and run.state in flow_runs.HOLDING and self._unclaimed(run):
            self._lose("a worker took it and never began")
        return None

    def _unclaimed(self, run: flow_runs.FlowRun) -> bool:
        """Whether its worker, or its pod, should have begun by now."""
        if self._pods:  # the time in which it runs counts from when it does
            waits = run.state == "PENDING"
            return self._claim.look(int(waits)) > (POD_SECONDS if waits else CLAIM_SECONDS * self._starts)
        return self._claim.look(0) > CLAIM_SECONDS * self._starts

    def _looked_at(self) -> flow_runs.FlowRun:
        if self._run is None:
            return self._ask()
        run = flow_runs.look(self._environment, self._run.id)
        return run if run is not None else self._lose("its flow run was deleted")

    def _ended(self, run: flow_runs.FlowRun) -> None:
        if run.state == "CANCELLED":
            if flow_runs.was_told(self._environment, run.id, _CANCELLED):
                self._lose("somebody else cancelled it, and didn't see that it is waited for here")
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

    def cancel(self, waiting: Waiting) -> None:
        """Passes a cancellation on, unless somebody else waits for the stage; waits until it is over."""
        if waiting.others():
            self._on_line("somebody else waits for it too, so it goes on there")
            return
        with suppress(ErvError):  # Prefect may have a run that it could not tell us of
            self._board.supersede(self._attempt, _CANCELLED)
        run = self._run
        if run is None:
            return
        with suppress(ErvError):
            queued = run.state == "SCHEDULED"
            state, message = "CANCELLED" if queued else "CANCELLING", _CANCELLED
            flow_runs.set_state(self._environment, run.id, state, message, force=queued)
            until = time.monotonic() + _CANCEL_SECONDS
            while time.monotonic() < until:
                now = flow_runs.look(self._environment, run.id)
                if now is None or now.ended:
                    return
                time.sleep(_PAUSE_SECONDS)
        self._on_line("WARNING: its worker has not yet confirmed that it has stopped")

    def away(self, error: StorageError | StackError) -> None:
        """Tells, seldom, that a server is away; the attempt goes on meanwhile.

        Raises:
            ErvError: the server answers, and has refused, or given something damaged, for a while. That
                doesn't pass by itself. The stage may go on; who runs it again waits for it again.
        """
        answers, now = self._answers(error), time.monotonic()
        if self._away is None:
            self._away = Away(now, now)
            self._on_line(f"WARNING: {error}; the stage goes on, waiting")
        away = self._away
        away.refuses = (away.refuses or now) if answers else None
        if away.refuses is not None and now - away.refuses > REFUSED_SECONDS:
            kind = StorageError if isinstance(error, StorageError) else StackError
            raise kind(
                f"{self._request.stage}: {error}; it has been so for {(now - away.since) / 60:.0f} min, and"
                " the stage may go on: once that is mended, run the same command again, which waits for it"
            )
        if now - away.told > REMIND_SECONDS:
            away.told = now
            self._on_line(f"WARNING: {error}; it has been so for {(now - away.since) / 60:.0f} min")

    def _answers(self, error: StorageError | StackError) -> bool:
        """Whether the server that an error is about can be reached."""
        if isinstance(error, StorageError):
            return not is_unanswered(error)
        here = self._environment
        return unreachable("Prefect", f"{here.prefect_api_url}/health", here.workspace) is None

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
