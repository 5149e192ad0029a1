"""Runs asynchronous work so that a stop signal ends it, whenever it arrives.

The handler of a signal raises between any two instructions of the main thread, also between the one with
which an event loop takes a step from its queue and the one that runs it. That step is lost then, and asyncio,
which cancels all tasks and waits for them at the end, waits for its task forever. So while the loop runs,
signals only cancel the work; their own handlers are called when the loop has ended.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, TypeVar

_Result = TypeVar("_Result")
_Handler = Callable[[int, FrameType | None], Any]
_STOPS = (signal.SIGINT, signal.SIGTERM)


def run_to_end(work: Coroutine[Any, Any, _Result]) -> _Result:
    """What the work returns.

    Raises:
        BaseException: what the work raises, or what the handler of a signal raises that cancelled it.
        asyncio.CancelledError: a signal cancelled the work, and its handler raised nothing.
    """
    stops = _Stops()
    try:
        with stops.noted():
            return asyncio.run(stops.cancelling(work))
    finally:
        stops.handle()


class _Stops:
    """The stop signals that arrive while a loop runs."""

    def __init__(self) -> None:
        self._arrived: list[tuple[int, _Handler]] = []
        self._cancel: Callable[[], object] | None = None

    @contextmanager
    def noted(self) -> Iterator[None]:
        """While inside, signals that have a handler in Python are noted, and cancel the work."""
        # Only the main thread runs handlers, and may set them.
        main = threading.current_thread() is threading.main_thread()
        found = {number: signal.getsignal(number) for number in _STOPS} if main else {}
        handlers = {number: handler for number, handler in found.items() if callable(handler)}
        try:
            for number, handler in handlers.items():
                signal.signal(number, partial(self._note, handler))
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    async def cancelling(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Awaits the work as a task that signals cancel."""
        loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
        # Within the loop, and waking it: it may be waiting for a socket.
        self._cancel = partial(loop.call_soon_threadsafe, task.cancel)
        if self._arrived:
            task.cancel()
        try:
            return await task
        finally:
            self._cancel = None  # the loop is about to close

    def handle(self) -> None:
        """Calls the handlers of what arrived, also if the work ended all the same: no signal is lost."""
        for number, handler in self._arrived:
            handler(number, None)

    def _note(self, handler: _Handler, number: int, _: FrameType | None) -> None:
        self._arrived.append((number, handler))
        if self._cancel is not None:
            self._cancel()
