"""Worker processes that may crash, hang or exhaust memory: each failure costs one item, never the run.

Decoders are C code that reads arbitrary files. `isolated` hands items to its own processes, kills one that
takes too long or too much memory, replaces a dead one, and yields the outcomes in the order of the items. A
worker already holds its next item while it sends a result. If it dies, the current item is to blame, and the
next goes to another worker.

An item whose worker died, was late or lacked memory is tried once more, alone and in a fresh process, so that
neither a loaded machine nor the leftovers of an earlier item cost a good item. A worker that leaks is
replaced before it comes to that, which bounds the memory of a long run.

Confined workers, which decode files of unknown origin, can open no file and no connection: they only get the
files that their items name (`erv.media.confinement`, `erv.media.handed`).
"""

from __future__ import annotations

import logging
import pickle
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Generic, TypeVar

from erv.media.answers import AnswerError, Form, clean, plain, record_of
from erv.media.confinement import Confinement
from erv.media.handed import can_hand_over
from erv.media.worker_process import Start, Worker, start_alone

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

# How far a fast worker may run ahead of the next outcome to yield; bounds the results in memory.
_AHEAD = 16
# How often to retry a process that is killed while starting (by the kernel, when memory is short).
_STARTS = 3
_SECONDS_BETWEEN_LOOKS = 0.25
# A worker that keeps more than this of its earlier items is replaced between two items. decord 0.6.0 never
# frees the samples of an `AudioReader` (64 kB a second at 16 kHz; github.com/dmlc/decord/issues/189).
_KEPT_BYTES = 256_000_000


@dataclass(frozen=True)
class Outcome(Generic[Item, Result]):
    """The outcome of an item: a result, or the reason why there is none."""

    item: Item
    result: Result | None
    failure: str | None


def isolated(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int,
    seconds: float,
    memory_mb: int | None = None,
    expected: tuple[type[Exception], ...] = (),
    prepare: Callable[[], None] | None = None,
    confined: bool = False,
    form: Form[Item, Result] | None = None,
    start: Start = start_alone,
) -> Generator[Outcome[Item, Result], None, None]:
    """Applies `function` to items in worker processes.

    Args:
        function: a module-level function; it and the items are pickled to the workers.
        items: consumed as workers become free.
        workers: number of processes.
        seconds: time for one item, after which its process is killed.
        memory_mb: megabytes (10^6 bytes) that an item may take beyond what its process has at the start;
            None for no limit. On Linux the kernel refuses more. On any system, a process whose resident
            memory exceeds it is killed.
        expected: exceptions that fail one item with their message. Any other ends the run, unless the
            workers are confined: whoever takes one over could end every run. Then it fails the item, too.
        prepare: a module-level function that a worker calls first, outside any time limit (slow imports).
        confined: whether workers may read only the files of their items, which are then
            `erv.media.handed.HasFiles`. What the function needs must be imported by `prepare`, or installed.
        form: what a result may be, by default any plain value. Any other answer counts as a worker that died.
        start: how a worker process is started; see `erv.media.nursery` for a faster way.

    Yields:
        One outcome per item, in the order of the items.

    Raises:
        RuntimeError: a worker can't start, or one that is not confined raised an exception that is not
            expected (with the traceback as text).
        OSError: a file of an item can't be opened.
    """
    crew: _Crew[Item, Result] = _Crew(
        function, prepare, seconds, memory_mb, expected, confined, form or plain(), start
    )
    source = enumerate(items)
    due = 0
    try:
        crew.start(workers)
        while True:
            crew.fill(source)
            crew.retry()
            while due in crew.done:
                yield crew.done.pop(due)
                due += 1
            if crew.exhausted and not crew.waiting and not crew.done:
                return
            if crew.waiting or not crew.exhausted:
                crew.collect()
    finally:
        crew.stop()


class _Crew(Generic[Item, Result]):
    """The workers, the items in progress or to be retried, and the outcomes that wait for their turn."""

    def __init__(
        self,
        function: Callable[[Item], Result],
        prepare: Callable[[], None] | None,
        seconds: float,
        memory_mb: int | None,
        expected: tuple[type[Exception], ...],
        confined: bool,
        form: Form[Item, Result],
        start: Start,
    ) -> None:
        self.waiting: dict[int, Item] = {}
        self.done: dict[int, Outcome[Item, Result]] = {}
        self.exhausted = False
        self._function, self._prepare = function, prepare
        self._seconds, self._memory_mb, self._form = seconds, memory_mb, form
        self._expected = {f"{kind.__module__}:{kind.__qualname__}" for kind in expected}
        self._confined, self._warned = confined, False
        self._start = start
        self._pool: list[Worker] = []
        self._untouched: deque[int] = deque()  # given to a worker that died before it started them
        self._again: deque[int] = deque()  # to be tried alone
        self._alone: set[int] = set()
        self._failed_starts = 0
        self._looked = 0.0

    def start(self, workers: int) -> None:
        self._pool.extend(self._new() for _ in range(workers))

    def stop(self) -> None:
        for worker in self._pool:
            worker.stop()

    def _new(self) -> Worker:
        return Worker(
            self._function, self._prepare, self._memory_mb, confined=self._confined, start=self._start
        )

    def fill(self, source: Iterator[tuple[int, Item]]) -> None:
        """Gives every worker an item, then a second one; none while an item waits to be tried alone."""
        for depth in (0, 1):
            for worker in self._pool:
                if self._again or any(set(other.queue) & self._alone for other in self._pool):
                    return
                if worker.ready and not worker.worn and len(worker.queue) == depth:
                    index = self._next(source)
                    if index is None:
                        return
                    message = pickle.dumps(self.waiting[index], protocol=5)
                    if depth and not worker.accepts_ahead(message):
                        self._untouched.appendleft(index)
                        return
                    worker.give(index, message, self._seconds, self._files(index))

    def _files(self, index: int) -> Sequence[Path]:
        """The files to hand over with an item."""
        if not (self._confined and can_hand_over()):
            return ()
        item: Any = self.waiting[index]
        files: Sequence[Path] = item.files
        return files

    def _next(self, source: Iterator[tuple[int, Item]]) -> int | None:
        if self._untouched:
            return self._untouched.popleft()
        if self.exhausted or len(self.waiting) + len(self.done) >= 2 * len(self._pool) + _AHEAD:
            return None
        entry = next(source, None)
        if entry is None:
            self.exhausted = True
            return None
        index, self.waiting[entry[0]] = entry
        return index

    def retry(self) -> None:
        """Hands out an item that must be tried alone, once nothing else is running or starting."""
        if not self._again or not all(worker.ready and not worker.queue for worker in self._pool):
            return
        fresh = next((worker for worker in self._pool if not worker.served), None)
        if fresh is None:
            self._pool[0].stop()
            self._pool[0] = self._new()
            return
        index = self._again.popleft()
        self._alone.add(index)
        message = pickle.dumps(self.waiting[index], protocol=5)
        fresh.give(index, message, self._seconds, self._files(index))

    def collect(self) -> None:
        """Waits for the next event of a worker: ready, result, death, timeout or too much memory."""
        now = time.monotonic()
        deadlines = [worker.deadline for worker in self._pool if worker.deadline is not None]
        timeout = max(0.0, min(deadlines) - now) if deadlines else None
        timeout = min(_SECONDS_BETWEEN_LOOKS, timeout if timeout is not None else _SECONDS_BETWEEN_LOOKS)
        events = set(wait([worker.pipe for worker in self._pool], timeout))
        for position, worker in enumerate(self._pool):
            if worker.pipe in events:
                try:
                    self._take(worker, *worker.receive(self._most_bytes(worker)))
                except AnswerError as error:
                    self._lose(position, f"decoder process gave a wrong answer: {error}")
                except (EOFError, OSError):
                    self._lose(position, worker.obituary())
            elif worker.deadline is not None and time.monotonic() >= worker.deadline:
                self._lose(position, f"not done within {worker.limit:g} s")
        self._look()
        for position, worker in enumerate(self._pool):
            if worker.worn and not worker.queue:
                self._renew(position)

    def _look(self) -> None:
        """Kills workers that are too large, and marks those that may keep memory."""
        now = time.monotonic()
        if now - self._looked < _SECONDS_BETWEEN_LOOKS:
            return
        self._looked = now
        for position, worker in enumerate(self._pool):
            if worker.queue and worker.is_too_large():
                self._lose(position, self._too_large())
            elif worker.growth() > _KEPT_BYTES:
                worker.worn = True

    def _renew(self, position: int) -> None:
        """Replaces an idle worker if it still holds the memory; otherwise the memory was that of an item."""
        worker = self._pool[position]
        worker.worn = worker.growth() > _KEPT_BYTES
        if worker.worn:
            logger.debug("a media worker keeps %d MB; replaced", worker.growth() // 1_000_000)
            worker.stop()
            self._pool[position] = self._new()

    def _too_large(self) -> str:
        return f"needs more than {self._memory_mb} MB"

    def _lose(self, position: int, failure: str) -> None:
        """Replaces a worker that died, is late or is too large."""
        worker = self._pool[position]
        worker.stop()
        if not worker.ready:
            self._failed_starts += 1
            if not failure.endswith("(signal 9)") or self._failed_starts == _STARTS:
                raise RuntimeError(f"a media worker could not start: {failure}")
        self._pool[position] = self._new()
        if worker.queue:
            index = worker.queue.popleft()
            self._untouched.extendleft(reversed(worker.queue))
            self._fail(index, failure)
        elif worker.ready:
            logger.warning("a media worker ended between two clips: %s; replaced", failure)

    def _fail(self, index: int, failure: str) -> None:
        """Handles an item whose worker failed: retries it alone, or records the failure of that retry."""
        if index in self._alone:
            self.done[index] = Outcome(self.waiting.pop(index), None, failure)
            self._alone.discard(index)
        else:
            self._again.append(index)

    def _warn_of(self, given: Confinement | None) -> None:
        """Says once what a confined worker could still do."""
        if given is not None and given.gaps and not self._warned:
            self._warned = True
            logger.warning("a clip that exploits a decoder could %s; see `erv doctor`", given.gaps)

    def _most_bytes(self, worker: Worker) -> int:
        """How much the arrays of its next answer may take."""
        return self._form.most_bytes(self.waiting[worker.queue[0]]) if worker.queue else 0

    def _take(self, worker: Worker, kind: str, value: Any) -> None:
        """Takes an answer; raises AnswerError for one that was not asked for or is not of the right form."""
        if not worker.ready:
            if kind != "ready":
                raise AnswerError("it is not ready")
            self._warn_of(None if value is None else record_of(Confinement, value))
            worker.ready, worker.deadline, self._failed_starts = True, None, 0
            worker.measure()
            return
        if not worker.queue:
            raise AnswerError("nothing was asked")
        result = self._result(worker.queue[0], value) if kind == "result" else None
        failure, trace = self._failure(value) if kind == "error" else (None, "")
        if kind not in ("result", "memory", "error"):
            raise AnswerError("it is of no known kind")
        index = worker.queue.popleft()
        worker.served += 1
        worker.start_clock(self._seconds)
        if kind == "memory":
            self._fail(index, self._too_large())
        elif trace:
            if not self._confined:
                raise RuntimeError(f"a media worker failed:\n{trace}")
            if index in self._alone:
                lines = " | ".join(clean(line) for line in trace.split("\n"))
                logger.error("unexpected fault in a media worker: %s", lines)
            self._fail(index, f"unexpected {failure}")
        else:
            self._alone.discard(index)
            self.done[index] = Outcome(self.waiting.pop(index), result, failure)

    def _result(self, index: int, value: Any) -> Result:
        try:
            return self._form.read(self.waiting[index], value)
        except Exception as error:  # whatever it is, it is no result
            raise AnswerError(str(error)) from error

    def _failure(self, value: Any) -> tuple[str, str]:
        """The message of an exception, and its traceback; empty if it is an expected one."""
        match value:
            case {"kinds": list(kinds), "text": str(text), "trace": str(trace)}:
                if any(kind in self._expected for kind in kinds if isinstance(kind, str)):
                    return clean(text), ""
                return clean(trace.strip().rpartition("\n")[2]) or "error", trace or "no traceback"
        raise AnswerError("no exception")
