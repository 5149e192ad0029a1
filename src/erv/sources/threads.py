"""Reads and hashes many files at once, in order and without holding all of them in memory."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

from erv.progress import meter

logger = logging.getLogger(__name__)

THREADS = 8
_AHEAD = 32

T = TypeVar("T")
R = TypeVar("R")


class StoppedError(Exception):
    """Raised in a worker whose result is no longer wanted."""


class Progress:
    """Counts what is read, shows it, and stops the readers when the work is given up.

    Args:
        what: is read, for the meter; nothing is shown before the first `begin`.
    """

    def __init__(self, what: str = "") -> None:
        self._what = what
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._bytes = 0
        self._meter: tqdm | None = None

    def begin(self, files: int) -> None:
        """So many more files are going to be read."""
        with self._lock:
            if self._meter is None:
                self._meter = meter(self._what, files, "files", logger, patient=True)
            else:
                self._meter.total += files

    def read(self, count: int) -> None:
        """Counts bytes; raises StoppedError once the work is cancelled."""
        if self._stopped.is_set():
            raise StoppedError
        with self._lock:
            self._bytes += count
            self._show(files=0)

    def done(self) -> None:
        """Counts a file."""
        with self._lock:
            self._show(files=1)

    def stop(self) -> None:
        """Makes all readers stop at their next chunk."""
        self._stopped.set()

    def close(self) -> None:
        """Ends the meter."""
        if self._meter is not None:
            self._meter.close()

    def _show(self, files: int) -> None:
        if self._meter is not None:
            self._meter.set_postfix_str(f"{self._bytes / 1e6:.0f} MB read", refresh=False)
            self._meter.update(files)


def in_order(
    function: Callable[[T], R], items: Iterable[T], progress: Progress, *, threads: int = THREADS
) -> Iterator[R]:
    """Yields `function` of each item, in order, computed a little ahead in threads.

    When one fails, or the caller goes away, running items are stopped and waiting ones dropped. The error
    raised is that of the first item that failed by itself, never of one that was stopped.
    """
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[Future[R]] = deque()
        try:
            for item in items:
                ahead.append(pool.submit(function, item))
                if len(ahead) >= _AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        except StoppedError:
            progress.stop()
            pool.shutdown(cancel_futures=True)  # the one that failed may not have finished yet
            fault = _first_fault(ahead)
            if fault is None:
                raise
            raise fault from fault.__cause__
        except BaseException:
            progress.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _first_fault(futures: Iterable[Future[R]]) -> BaseException | None:
    """The first error of finished items, ignoring those that were stopped or dropped."""
    errors = (future.exception() for future in futures if not future.cancelled())
    return next((error for error in errors if error and not isinstance(error, StoppedError)), None)
