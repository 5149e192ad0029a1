"""Reads and hashes many files at once, in order and without holding all of them in memory."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

logger = logging.getLogger(__name__)

THREADS = 8
_AHEAD = 32
_CHUNK = 1 << 20
_EVERY_SECONDS = 5.0

T = TypeVar("T")
R = TypeVar("R")


class StoppedError(Exception):
    """Raised in a worker whose result is no longer wanted."""


class Progress:
    """Counts what is read, logs it every few seconds, and stops the readers when the work is cancelled."""

    def __init__(self, what: str = "") -> None:
        self._what = what
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._bytes = self._files = 0
        self._of = ""
        self._next = time.monotonic() + _EVERY_SECONDS

    def begin(self, files: int) -> None:
        """Starts counting a batch of files."""
        with self._lock:
            self._files, self._of = 0, f" of {files:,}"

    def read(self, count: int) -> None:
        """Counts bytes; raises StoppedError once the work is cancelled."""
        if self._stopped.is_set():
            raise StoppedError
        with self._lock:
            self._bytes += count
            self._say()

    def done(self) -> None:
        """Counts a file."""
        with self._lock:
            self._files += 1
            self._say()

    def stop(self) -> None:
        """Makes all readers stop at their next chunk."""
        self._stopped.set()

    def _say(self) -> None:
        now = time.monotonic()
        if self._what and now >= self._next:
            self._next = now + _EVERY_SECONDS
            files = f"{self._files:,}{self._of} files"
            logger.info("%s: %s, %.0f MB read", self._what, files, self._bytes / 1e6)


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


def digest(path: Path, progress: Progress | None = None) -> str:
    """Hex sha256 of a file."""
    result = hashlib.sha256()
    with path.open("rb", buffering=0) as stream:
        while chunk := stream.read(_CHUNK):
            result.update(chunk)
            if progress is not None:
                progress.read(len(chunk))
    return result.hexdigest()
