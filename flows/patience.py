"""How long a placed stage waits in a work pool that no worker serves, and what is said meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable

from erv.errors import StackError

_REMIND_SECONDS = 300.0


class NobodyComesError(StackError):
    """No worker serves the pool."""


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
            minutes = f"{self._seconds / 60:g}"
            raise NobodyComesError(
                f"no worker has served work pool {self._pool!r} for {minutes}"
                f" {'minute' if minutes == '1' else 'minutes'} (machine.placement_wait_minutes);"
                f" {remedy}, then run the same command again"
            )
        if self._told is None or now - self._told > _REMIND_SECONDS:
            self._told = now
            self._on_line(f"WARNING: no worker serves work pool {self._pool!r}; {remedy}")
