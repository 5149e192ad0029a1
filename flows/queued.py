"""What a placed stage says while workers serve its pool and none takes it."""

from __future__ import annotations

import time
from collections.abc import Callable

from erv.environment import Environment
from erv.stack.flow_runs import holding
from erv.stack.pools import read_pool

_FIRST_SECONDS = 30.0  # a worker looks for new runs every few seconds
_REMIND_SECONDS = 300.0


class Queued:
    """Tells now and then what a stage waits for in a pool that is served.

    Args:
        environment: where Prefect is.
        on_line: takes a line.
    """

    def __init__(self, environment: Environment, on_line: Callable[[str], None]) -> None:
        self._environment, self._on_line = environment, on_line
        self._next: float | None = None

    def look(self, pool: str) -> None:
        """Call it while the stage waits.

        Raises:
            StackError: Prefect can't be asked.
        """
        now = time.monotonic()
        if self._next is None:
            self._next = now + _FIRST_SECONDS
        if now >= self._next:
            self._next = now + _REMIND_SECONDS
            self._on_line(f"waits in work pool {pool!r}: {self._why(pool)}")

    def _why(self, pool: str) -> str:
        found = read_pool(self._environment, pool) or {}
        if found.get("is_paused"):
            return f"it is paused; `prefect work-pool resume {pool}` has it go on"
        count, limit = len(holding(self._environment, pool)), found.get("concurrency_limit")
        running = "1 stage runs" if count == 1 else f"{count} stages run"
        if limit is not None and count >= int(limit):
            return f"{running} there, and its limit is {limit}"
        return f"{running} there, and its workers have not taken this one yet"
