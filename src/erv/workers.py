"""Worker processes that may crash or hang: each costs the one item it was at, never the run.

Decoders are C code fed with files from anywhere. `isolated` hands items one at a time to processes of its
own, kills a process that takes too long, replaces a dead one, tries a late item once more alone, and yields
the outcomes in the order of the items.
"""

from __future__ import annotations

import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# How far a fast worker may run ahead of the item whose outcome is due; bounds the results in memory.
_AHEAD = 16
# For a process to start and import its decoders; only one that hangs takes so long.
_START_SECONDS = 300.0


@dataclass(frozen=True)
class Outcome(Generic[Item, Result]):
    """What became of an item: a result, or the reason why there is none."""

    item: Item
    result: Result | None
    failure: str | None


class _Worker:
    """A process, the pipe to it and what it is at."""

    def __init__(self, function: Callable[[Any], Any], prepare: Callable[[], None] | None) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=_serve, args=(function, prepare, theirs), daemon=True
        )
        self.process.start()
        theirs.close()
        self.index: int | None = None
        self.limit = _START_SECONDS
        self.deadline: float | None = time.monotonic() + self.limit
        self.ready = False

    def give(self, index: int, item: Any, seconds: float) -> None:
        self.index, self.limit, self.deadline = index, seconds, time.monotonic() + seconds
        self.pipe.send(item)

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def isolated(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int,
    seconds: float,
    expected: tuple[type[Exception], ...] = (),
    prepare: Callable[[], None] | None = None,
) -> Iterator[Outcome[Item, Result]]:
    """Applies `function` to items in worker processes.

    Args:
        function: a module-level function; it and the items are pickled to the workers.
        items: consumed as workers become free.
        workers: number of processes.
        seconds: time for one item, after which its process is killed. The item is then tried once more while
            no other item runs, so that a loaded machine costs no good item.
        expected: exceptions that fail one item with their message; any other is re-raised here.
        prepare: a module-level function that a worker calls first, in no item's time (slow imports).

    Yields:
        One outcome per item, in the order of the items.

    Raises:
        RuntimeError: a worker can't start.
    """
    crew: _Crew[Item, Result] = _Crew(function, prepare, seconds, expected)
    source = enumerate(items)
    due, exhausted = 0, False
    try:
        crew.start(workers)
        while True:
            idle = crew.idle()
            while idle and not exhausted and len(crew.waiting) + len(crew.done) < workers + _AHEAD:
                entry = next(source, None)
                if entry is None:
                    exhausted = True
                    break
                index, item = entry
                crew.waiting[index] = item
                idle.pop().give(index, item, seconds)
            crew.retry()
            while due in crew.done:
                yield crew.done.pop(due)
                due += 1
            if exhausted and not crew.waiting and not crew.done:
                return
            crew.collect()
    finally:
        crew.stop()


class _Crew(Generic[Item, Result]):
    """The workers, the items they are at or still have to try again, and the outcomes not yet due."""

    def __init__(
        self,
        function: Callable[[Item], Result],
        prepare: Callable[[], None] | None,
        seconds: float,
        expected: tuple[type[Exception], ...],
    ) -> None:
        self.waiting: dict[int, Item] = {}
        self.done: dict[int, Outcome[Item, Result]] = {}
        self._function, self._prepare = function, prepare
        self._seconds, self._expected = seconds, expected
        self._pool: list[_Worker] = []
        self._again: deque[int] = deque()
        self._retried: set[int] = set()

    def start(self, workers: int) -> None:
        self._pool.extend(_Worker(self._function, self._prepare) for _ in range(workers))

    def stop(self) -> None:
        for worker in self._pool:
            worker.stop()

    def idle(self) -> list[_Worker]:
        """Workers that may take a new item: none while one is to be tried, or is tried, alone."""
        if self._again or any(worker.index in self._retried for worker in self._pool):
            return []
        return [worker for worker in self._pool if worker.ready and worker.index is None]

    def retry(self) -> None:
        """Gives out an item that ran out of time, as soon as nothing else runs or starts."""
        if self._again and all(worker.ready and worker.index is None for worker in self._pool):
            index = self._again.popleft()
            self._retried.add(index)
            self._pool[0].give(index, self.waiting[index], self._seconds)

    def collect(self) -> None:
        """Waits for the next event of a worker: ready, result, death or timeout."""
        now = time.monotonic()
        deadlines = [worker.deadline for worker in self._pool if worker.deadline is not None]
        timeout = max(0.0, min(deadlines) - now) if deadlines else None
        events = set(wait([worker.pipe for worker in self._pool], timeout))
        for position, worker in enumerate(self._pool):
            if worker.pipe in events:
                try:
                    kind, value = worker.pipe.recv()
                except (EOFError, OSError):
                    self._lose(position, _obituary(worker), late=False)
                else:
                    self._take(worker, kind, value)
            elif worker.deadline is not None and time.monotonic() >= worker.deadline:
                self._lose(position, f"not done within {worker.limit:g} s", late=True)

    def _lose(self, position: int, failure: str, *, late: bool) -> None:
        """Replaces a worker that died or is late; its item fails, or is tried again when it was late once."""
        worker = self._pool[position]
        worker.stop()
        index = worker.index
        if index is None:
            raise RuntimeError(f"a media worker could not start: {failure}")
        if late and index not in self._retried:
            self._again.append(index)
        else:
            self.done[index] = Outcome(self.waiting.pop(index), None, failure)
        self._pool[position] = _Worker(self._function, self._prepare)

    def _take(self, worker: _Worker, kind: str, value: Any) -> None:
        index, worker.index, worker.deadline = worker.index, None, None
        if kind == "ready":
            worker.ready = True
        elif index is not None and kind == "result":
            self.done[index] = Outcome(self.waiting.pop(index), value, None)
        elif index is not None and isinstance(value, self._expected):
            self.done[index] = Outcome(self.waiting.pop(index), None, str(value))
        elif index is not None:
            raise value


def _obituary(worker: _Worker) -> str:
    worker.process.join(5)
    code = worker.process.exitcode
    return (
        f"decoder process died (signal {-code})"
        if code is not None and code < 0
        else f"decoder exited ({code})"
    )


def _serve(function: Callable[[Any], Any], prepare: Callable[[], None] | None, pipe: Connection) -> None:
    """The loop of a worker process; ends when the pipe closes."""
    from erv.process import die_with_parent

    die_with_parent()
    if prepare is not None:
        prepare()
    pipe.send(("ready", None))
    while True:
        try:
            item = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            answer = ("result", function(item))
        except KeyboardInterrupt:
            return
        except Exception as error:  # handed to the parent, which knows which ones are expected
            answer = ("error", error)
        pipe.send(answer)
