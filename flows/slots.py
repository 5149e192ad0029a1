"""Slots of a work pool that dead workers hold: whoever waits for one tells Prefect.

A worker that is killed leaves its flow run pending or running for ever, and the run holds a slot of the pool.
Its coordinator notices; but it may be gone, too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from erv.environment import Environment
from erv.errors import StorageError
from erv.remote.board import Board
from erv.remote.pulse import DEAD_SECONDS, Watched
from erv.stack import flow_runs
from erv.stack.flow_runs import FlowRun
from erv.stack.pools import is_kubernetes, read_pool
from erv.storage.store import Store, open_store
from flows.attempt import CLAIM_SECONDS, LOST_IN_A_ROW, POD_SECONDS

# A run that was taken and has no pulse yet: its worker may still be starting Python. Who waits for it decides
# first.
UNBORN_SECONDS = CLAIM_SECONDS + 5.0
_LOOK_SECONDS = 4.0
_NEEDED = ("key", "attempt", "bucket")


def unborn_seconds(attempt: int) -> float:
    """How long the worker of an attempt may take to start.

    Its coordinator counts the workers that it has asked in vain, which are fewer than the attempts and at
    most `LOST_IN_A_ROW`; it may not be here to be asked.
    """
    return UNBORN_SECONDS * min(attempt, LOST_IN_A_ROW)


class Slots:
    """Watches the runs that hold slots. Thread-safe.

    Args:
        environment: where Prefect and the boards are.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._guard = threading.Lock()
        self._looked: dict[str, float] = {}
        self._watched: dict[str, Watched] = {}
        self._pods: dict[str, bool] = {}
        self._opened: Store | None = None

    def free(self, pool: str, say: Callable[[str], None]) -> None:
        """Marks runs as crashed whose worker gives no sign of life; repeat it while you wait.

        Raises:
            StackError: Prefect can't be asked.
        """
        with self._guard:
            now = time.monotonic()
            if now - self._looked.get(pool, -_LOOK_SECONDS) < _LOOK_SECONDS:
                return
            self._looked[pool] = now
            for run in flow_runs.holding(self._environment, pool):
                if all(name in run.parameters for name in _NEEDED):
                    self._judge(run, pool, say, waits=self._has_pods(pool) and run.state == "PENDING")

    def _has_pods(self, pool: str) -> bool:
        if pool not in self._pods:
            self._pods[pool] = is_kubernetes(read_pool(self._environment, pool))
        return self._pods[pool]

    def _judge(self, run: FlowRun, pool: str, say: Callable[[str], None], *, waits: bool) -> None:
        """Looks at one run; `waits` if it is a pod that may not have started yet."""
        if self._opened is None:
            self._opened = open_store(self._environment)
        attempt = int(run.parameters["attempt"])
        board = Board(self._opened, str(run.parameters["bucket"]), str(run.parameters["key"]))
        try:
            pulse = board.pulse(attempt)
        except StorageError:  # a bucket of somebody else, or the store is away: nothing can be said
            return
        watched = self._watched.setdefault(run.id, Watched())
        still = watched.look(-int(waits) if pulse is None else int(pulse.get("count", 0)))
        unborn = POD_SECONDS if waits else unborn_seconds(attempt)
        if still <= (unborn if pulse is None else DEAD_SECONDS):
            return
        reason = f"its worker has given no sign of life for {still:.0f} s"
        try:
            board.supersede(attempt, reason)
        except StorageError:
            return
        flow_runs.set_state(self._environment, run.id, "CRASHED", reason, force=True)
        stage = run.parameters.get("stage", "a stage")
        say(f"WARNING: freed a slot of work pool {pool!r} that {stage} held (flow run {run.id}): {reason}")
