"""Worker processes that may crash or hang: each costs the one item it was at, never the run.

Decoders are C code fed with files from anywhere. `isolated` hands items one at a time to processes of its
own, kills a process that takes too long, replaces a dead one, and yields the outcomes in the order of the
items.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# How far a fast worker may run ahead of the item whose outcome is due; bounds the results in memory.
_AHEAD = 16


@dataclass(frozen=True)
class Outcome(Generic[Item, Result]):
    """What became of an item: a result, or the reason why there is none."""

    item: Item
    result: Result | None
    failure: str | None


class _Worker:
    """A process, the pipe to it and what it is at."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(function, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.index: int | None = None
        self.deadline: float | None = None
        self.ready = False

    def give(self, index: int, item: Any, seconds: float) -> None:
        self.index, self.deadline = index, time.monotonic() + seconds
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
) -> Iterator[Outcome[Item, Result]]:
    """Applies `function` to items in worker processes.

    Args:
        function: a module-level function; it and the items are pickled to the workers.
        items: consumed as workers become free.
        workers: number of processes.
        seconds: time for one item, after which its process is killed.
        expected: exceptions that fail one item with their message; any other is re-raised here.

    Yields:
        One outcome per item, in the order of the items.
    """
    source = enumerate(items)
    waiting: dict[int, Any] = {}
    done: dict[int, Outcome[Item, Result]] = {}
    pool: list[_Worker] = []
    due, exhausted = 0, False
    try:
        pool.extend(_Worker(function) for _ in range(workers))
        while True:
            idle = [worker for worker in pool if worker.ready and worker.index is None]
            while idle and not exhausted and len(waiting) + len(done) < workers + _AHEAD:
                entry = next(source, None)
                if entry is None:
                    exhausted = True
                    break
                index, item = entry
                waiting[index] = item
                idle.pop().give(index, item, seconds)
            while due in done:
                yield done.pop(due)
                due += 1
            if exhausted and not waiting and not done:
                return
            _collect(pool, waiting, done, function, seconds, expected)
    finally:
        for worker in pool:
            worker.stop()


def _collect(
    pool: list[_Worker],
    waiting: dict[int, Any],
    done: dict[int, Outcome[Any, Any]],
    function: Callable[[Any], Any],
    seconds: float,
    expected: tuple[type[Exception], ...],
) -> None:
    """Waits for the next event of a worker: ready, result, death or timeout."""
    now = time.monotonic()
    deadlines = [worker.deadline for worker in pool if worker.deadline is not None]
    timeout = max(0.0, min(deadlines) - now) if deadlines else None
    events = set(wait([worker.pipe for worker in pool], timeout))
    for position, worker in enumerate(pool):
        failure = None
        if worker.pipe in events:
            try:
                kind, value = worker.pipe.recv()
            except (EOFError, OSError):
                failure = _obituary(worker)
            else:
                _take(worker, kind, value, waiting, done, expected)
        elif worker.deadline is not None and time.monotonic() >= worker.deadline:
            failure = f"not done within {seconds:g} s"
        if failure is not None:
            if worker.index is None:
                worker.stop()
                raise RuntimeError(f"a media worker could not start: {failure}")
            done[worker.index] = Outcome(waiting.pop(worker.index), None, failure)
            worker.stop()
            pool[position] = _Worker(function)


def _take(
    worker: _Worker,
    kind: str,
    value: Any,
    waiting: dict[int, Any],
    done: dict[int, Outcome[Any, Any]],
    expected: tuple[type[Exception], ...],
) -> None:
    if kind == "ready":
        worker.ready = True
        return
    index, worker.index, worker.deadline = worker.index, None, None
    if index is None:
        return
    if kind == "result":
        done[index] = Outcome(waiting.pop(index), value, None)
    elif isinstance(value, expected):
        done[index] = Outcome(waiting.pop(index), None, str(value))
    else:
        raise value


def _obituary(worker: _Worker) -> str:
    worker.process.join(5)
    code = worker.process.exitcode
    return (
        f"decoder process died (signal {-code})"
        if code is not None and code < 0
        else f"decoder exited ({code})"
    )


def _serve(function: Callable[[Any], Any], pipe: Connection) -> None:
    """The loop of a worker process; ends when the pipe closes."""
    from erv.process import die_with_parent

    die_with_parent()
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
