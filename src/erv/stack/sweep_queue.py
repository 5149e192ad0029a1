"""The queue in which the trials of sweeps wait in a work pool: behind everybody else, and never in all slots.

Prefect does the queueing: a queue has a priority and a limit, and its server keeps both over all sweeps of
all clones. What Prefect doesn't know is how many runs the workers take at a time, so whoever waits in the
queue keeps its limit at what this module says; all do so by the same rule.
"""

from __future__ import annotations

import threading
import time
from urllib.parse import quote

from erv.environment import Environment
from erv.stack.pools import is_kubernetes, read_pool, workers_online
from erv.stack.prefect_api import ask

QUEUE = "sweeps"
_LOOK_SECONDS = 10.0


def limit_of(pool_limit: int | None, workers: int | None, spare: int) -> int | None:
    """How many trials may run at a time in a pool, over all sweeps; one at least, and None for any number.

    Args:
        pool_limit: how many runs the pool has at a time; None for any number.
        workers: how many are online; each has one run at a time. None if one has any number of them.
        spare: how many slots are left to others.
    """
    slots = [number for number in (pool_limit, workers) if number is not None]
    return max(1, min(slots) - spare) if slots else None


class SweepQueue:
    """The queue of each pool, for one flow run. Thread-safe.

    Args:
        environment: where Prefect is.
        spare: `machine.placement_spare`.
    """

    def __init__(self, environment: Environment, spare: int) -> None:
        self._environment, self._spare = environment, spare
        self._guard = threading.Lock()
        self._looked: dict[str, float] = {}

    def keep(self, pool: str) -> None:
        """Makes sure that the pool has the queue, with the limit that it should have now.

        Raises:
            StackError: Prefect can't be reached or refuses.
        """
        with self._guard:
            now = time.monotonic()
            if now - self._looked.get(pool, -_LOOK_SECONDS) < _LOOK_SECONDS:
                return
            found = read_pool(self._environment, pool)
            if found is None:  # whoever asks for a run there is told
                return
            # One worker makes the jobs of all runs of a cluster.
            workers = None if is_kubernetes(found) else workers_online(self._environment, pool)
            limit = limit_of(found.get("concurrency_limit"), workers, self._spare)
            path = f"/work_pools/{quote(pool, safe='')}/queues/{QUEUE}"
            queue = ask(self._environment, path, missing=True)
            if queue is None:
                # Without a priority of its own it comes last.
                new = {
                    "name": QUEUE,
                    "concurrency_limit": limit,
                    "description": "Trials of sweeps: behind all others, and never in every slot.",
                }
                ask(self._environment, path.rpartition("/")[0], new, about="a queue for sweeps")
            elif queue.get("concurrency_limit") != limit:
                change = {"concurrency_limit": limit}
                ask(self._environment, path, change, about="the queue of sweeps", method="PATCH")
            self._looked[pool] = now
