"""The pulse of a worker: it counts while it lives, and whoever waits for it sees whether it still counts.

No clock of one machine is compared with that of another. The worker writes a counter; the coordinator
measures, on its own monotonic clock, for how long it has seen the same count. Time in which it could not look
(the store was away, or the coordinator itself was stopped) doesn't count against the worker.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType

from erv.errors import ErvError
from erv.pipeline import StageCancelledError
from erv.remote.board import Board

logger = logging.getLogger(__name__)

BEAT_SECONDS = 3.0
# A worker whose count has stood still for this long is taken to be gone. With the pauses between two looks,
# that is noticed within a minute.
DEAD_SECONDS = 45.0
# Of the time between two looks, no more than this counts.
_LONGEST_GAP_SECONDS = 8.0


class Watched:
    """For how long a counter has stood still, as far as it was looked at."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._count: int | None = None
        self._looked: float | None = None
        self.still = 0.0

    def look(self, count: int | None) -> float:
        """Takes what was read just now; None if there is no pulse yet.

        Returns:
            The seconds for which it has stood still.
        """
        now = self._clock()
        if self._looked is None or count != self._count:
            self.still = 0.0
        else:
            self.still += min(now - self._looked, _LONGEST_GAP_SECONDS)
        self._looked, self._count = now, count
        return self.still


class Beating:
    """Shows that a worker lives, passes on what its stage prints, and notices that it no longer counts.

    Args:
        board: of the stage.
        attempt: the worker's.
        worker: its name, for people.
    """

    def __init__(self, board: Board, attempt: int, worker: str) -> None:
        self._board, self._attempt, self._worker = board, attempt, worker
        self._count = self._pieces = 0
        self._lines: list[str] = []
        self._guard = threading.Lock()
        self._stop, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._keep, name="pulse", daemon=True)

    def say(self, line: str) -> None:
        """Passes a line on to whoever waits."""
        with self._guard:
            self._lines.append(line)

    def over(self) -> bool:
        """Whether the attempt no longer counts, as far as the last look says."""
        return self._over.is_set()

    def check(self) -> None:
        """Looks now, before something is done that must not be done twice.

        Raises:
            StageCancelledError: the attempt no longer counts.
            StorageError: the store can't be asked.
        """
        reason = self._board.superseded(self._attempt)
        if reason is not None:
            self._over.set()
            raise StageCancelledError(f"attempt {self._attempt} no longer counts: {reason}")

    def __enter__(self) -> Beating:
        self.check()
        self._beat(ended=False)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join(2 * BEAT_SECONDS)
        if not self._over.is_set():
            try:
                self._beat(ended=True)
            except ErvError as fault:
                logger.debug("the last pulse was not written: %s", fault)

    def _keep(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            try:
                # First: a process that was stopped for a while must not write before it has looked.
                if self._board.superseded(self._attempt) is not None:
                    self._over.set()
                    return
                self._beat(ended=False)
            except ErvError as error:  # the store may be away for a moment
                logger.debug("no pulse now: %s", error)
            except Exception:  # without a pulse, the stage would be taken for dead
                logger.exception("no pulse now; please report this")

    def _beat(self, *, ended: bool) -> None:
        with self._guard:
            lines, self._lines = self._lines, []
        try:
            if lines:
                self._board.write_log(self._attempt, self._pieces + 1, "\n".join(lines))
                self._pieces += 1
        except ErvError:
            with self._guard:
                self._lines = [*lines, *self._lines]
            raise
        self._count += 1
        pulse = {"count": self._count, "pieces": self._pieces, "worker": self._worker, "ended": ended}
        self._board.beat(self._attempt, pulse)
