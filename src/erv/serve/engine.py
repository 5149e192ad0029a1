"""Keeps a version answering: another takes its place without a request lost, a dead process is replaced."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from erv.answering.process import Answerer, QueueFull, Ticket
from erv.answering.requests import Request
from erv.errors import ErvError
from erv.serve.versions import Source, Version

logger = logging.getLogger(__name__)

_TICK_SECONDS = 0.2
_END_SECONDS = 5.0
_LONGEST_PAUSE = 60.0  # between two starts of a process that can't be started
_AGAIN_SECONDS = 600.0  # until a version that could not be loaded is tried again


class Unavailable(ErvError):
    """No process answers at the moment; one is being started."""


@dataclass(eq=False)
class Serving:
    """A version and the process that answers for it."""

    version: Version
    answerer: Answerer

    @property
    def idle(self) -> bool:
        """Whether it has nothing to do."""
        return not self.answerer.waiting and not self.answerer.answering


class Place:
    """A place in the queue, kept for a request that is still being read; see `Engine.place`."""

    def __init__(self, engine: Engine) -> None:
        self._engine: Engine | None = engine

    def submit(self, request: Request) -> tuple[Ticket, Version]:
        """Gives the place to the request, which then waits there; with the version that answers it.

        Raises:
            QueueFull: too many wait.
            Unavailable: no process answers at the moment.
        """
        assert self._engine is not None
        with self._engine._lock:
            found = self._engine._submit(request)
            self._leave()
        return found

    def _leave(self) -> None:
        if self._engine is not None:
            self._engine._reading -= 1
            self._engine = None


@dataclass
class Counts:
    """What happened since the start.

    Attributes:
        restarts: processes that died and were replaced.
        reloads: versions that took another's place.
        failed_reloads: versions that could not be loaded, so that the one before goes on.
    """

    restarts: int = 0
    reloads: int = 0
    failed_reloads: int = 0


class Engine:
    """Answers with the version that its source names; any thread may use it.

    A thread looks whether the source names another version. That one is loaded beside the present one, so
    both need memory for a while; then new requests go to it, and the old process ends with its last request.
    Until then the present one goes on, and is replaced if it dies.

    Args:
        source: names and brings versions.
        start: starts the process of a version; raises ErvError.
        queue: most requests that wait or are being read.
        every: seconds between two looks; 0 never looks.

    Raises:
        ErvError: the first version can't be brought or started.
    """

    def __init__(
        self, source: Source, start: Callable[[Version], Answerer], *, queue: int, every: float = 30.0
    ) -> None:
        if queue < 1 or every < 0:
            raise ValueError(f"queue is {queue} and every is {every}; expected at least 1 and at least 0")
        self._source, self._start, self._queue, self._every = source, start, queue, every
        self.counts = Counts()
        self._lock = threading.Lock()
        self._reading = 0
        self._old: list[Serving] = []
        self._newest = source.newest()
        version = self._fetch()
        self._serving = Serving(version, start(version))
        self._looked = time.monotonic()
        self._failed: tuple[str, float] | None = None  # a version that can't be loaded, and until when
        self._started, self._pause = time.monotonic(), _TICK_SECONDS
        self._closing = threading.Event()
        self._loader = threading.Thread()  # of the version that is being loaded
        self._thread = threading.Thread(target=self._watch, name="versions", daemon=True)
        self._thread.start()

    @property
    def version(self) -> Version:
        """The version that new requests are answered by."""
        return self._serving.version

    @property
    def ready(self) -> bool:
        """Whether requests are answered now."""
        return self._serving.answerer.alive

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        with self._lock:
            return sum(one.answerer.waiting for one in self._all())

    @property
    def answering(self) -> int:
        """How many requests are being answered."""
        with self._lock:
            return sum(one.answerer.answering for one in self._all())

    @contextlib.contextmanager
    def place(self) -> Iterator[Place]:
        """Keeps a place for a request that is still being read, until it is submitted or the block ends.

        Requests that are read or wait have their clips in memory, so both count, and none counts twice.

        Raises:
            QueueFull: there is none.
        """
        with self._lock:
            waiting = self._serving.answerer.waiting
            if self._reading + waiting >= self._queue:
                raise QueueFull(f"{self._reading + waiting} requests wait already; ask again later")
            self._reading += 1
        place = Place(self)
        try:
            yield place
        finally:
            with self._lock:
                place._leave()

    def _submit(self, request: Request) -> tuple[Ticket, Version]:
        """For `Place`, with the lock: a process that has a request isn't closed as one that is idle."""
        serving = self._serving
        if not serving.answerer.alive:
            raise Unavailable("the process of the model has ended and is being replaced; ask again soon")
        return serving.answerer.submit(request), serving.version

    def close(self) -> None:
        """Ends all processes; requests without an answer get an error.

        One that is just being started is not waited for: it ends as soon as it has loaded its model, at the
        latest with this process.
        """
        self._closing.set()
        self._thread.join(_END_SECONDS)
        with self._lock:
            serving = self._all()
        for one in serving:
            one.answerer.close()

    def _fetch(self) -> Version:
        version = self._source.fetch()
        if version.notice is not None:
            logger.warning("%s", version.notice)
        return version

    def _all(self) -> list[Serving]:
        return [self._serving, *self._old]

    def _watch(self) -> None:
        while not self._closing.wait(_TICK_SECONDS):
            try:
                self._end_old()
                if not self._serving.answerer.alive:
                    self._replace_dead()
                late = self._every and time.monotonic() - self._looked >= self._every
                if late and not self._loader.is_alive():
                    self._look()
            except Exception:  # the thread must not end
                logger.exception("the version that is served could not be looked after")

    def _end_old(self) -> None:
        with self._lock:
            done = [one for one in self._old if one.idle or not one.answerer.alive]
            self._old = [one for one in self._old if one not in done]
        for one in done:
            one.answerer.close()
            logger.warning("the process of %s has ended", one.version.id)

    def _replace_dead(self) -> None:
        """Starts another process for the same version; later and later if it dies again and again."""
        dead, now = self._serving, time.monotonic()
        if now - self._started < self._pause:
            return
        lived = now - self._started
        self._pause = _TICK_SECONDS if lived > _LONGEST_PAUSE else min(2 * self._pause, _LONGEST_PAUSE)
        logger.error("%s: %s", dead.version.id, dead.answerer.fault)
        self._started = now
        try:
            answerer = self._start(dead.version)
        except ErvError as error:
            logger.error("%s can't be started again: %s", dead.version.id, error)
            return
        if self._put(Serving(dead.version, answerer), dead):
            self.counts.restarts += 1

    def _put(self, serving: Serving, dead: Serving | None = None) -> bool:
        """Lets a process answer from now on, and the one before finish.

        Args:
            serving: the process.
            dead: the one that it replaces; None for another version, whatever answers.

        Returns:
            False if it was closed instead: all are to end, or another version took the place of the dead one.
        """
        with self._lock:
            wanted = not self._closing.is_set() and dead in (None, self._serving)
            if wanted:
                self._old.append(self._serving)
                self._serving = serving
        if not wanted:
            serving.answerer.close()
        return wanted

    def _look(self) -> None:
        self._looked = time.monotonic()
        try:
            newest = self._source.newest()
        except ErvError as error:
            logger.warning("can't tell whether another version is to be served: %s", error)
            return
        if newest == self._newest or (self._failed and self._failed[0] == newest and not self._again()):
            return
        # Beside this thread, which meanwhile replaces the present process if it dies.
        self._loader = threading.Thread(target=self._load, args=(newest,), name="loading", daemon=True)
        self._loader.start()

    def _load(self, newest: str) -> None:
        logger.warning("loading %s", newest)
        try:
            version = self._fetch()
            answerer = self._start(version)
        except Exception as error:  # the disk may be full, too
            self._failed = (newest, time.monotonic() + _AGAIN_SECONDS)
            self.counts.failed_reloads += 1
            trace = None if isinstance(error, ErvError) else error
            logger.error("%s goes on: %s can't be served: %s", self.version.id, newest, error, exc_info=trace)
            return
        if not self._put(Serving(version, answerer)):
            return
        self._newest, self._failed = newest, None
        self._started = time.monotonic()
        self.counts.reloads += 1
        logger.warning("%s answers now", version.id)

    def _again(self) -> bool:
        assert self._failed is not None
        return time.monotonic() >= self._failed[1]
