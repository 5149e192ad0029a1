"""The tasks of a flow that are at work: their end is waited for before the flow gives up what they need.

Prefect leaves the flow's body first and waits for the threads of tasks then, when the workspace's lock would
be free already: another run would begin beside stages that are still being stopped.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from erv.pipeline import StageCancelledError
from erv.pipeline.undisturbed import undisturbed


class AtWork:
    """Leaves its block when no task is at work; the tasks are stopped if the block fails.

    Args:
        stop: has the tasks stop, which they do within seconds.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._changed = threading.Condition()
        self._count, self._over = 0, False

    @contextmanager
    def task(self) -> Iterator[None]:
        """Counts a task as at work while the block runs.

        Raises:
            StageCancelledError: the flow is over; Prefect had the task wait for a thread until now.
        """
        with self._changed:
            if self._over:
                raise StageCancelledError("cancelled before it began")
            self._count += 1
        try:
            yield
        finally:
            with self._changed:
                self._count -= 1
                self._changed.notify_all()

    def __enter__(self) -> AtWork:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with undisturbed():
            if kind is not None:  # SIGTERM, Ctrl-C or a bug
                self._stop()
            with self._changed:
                self._over = True
                self._changed.wait_for(lambda: self._count == 0)
