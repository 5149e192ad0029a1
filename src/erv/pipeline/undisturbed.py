"""A wait that Ctrl-C and SIGTERM don't cut short: they count when it is over."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keeps signals back while the block runs, which must end by itself, and passes the last one on then.

    A second Ctrl-C would otherwise end the wait for processes that are being stopped, and they would go on
    writing while others start. In a thread, where no signal arrives, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(signum: int, _frame: FrameType | None) -> None:
        came.append(signum)

    before = {}
    for signum in _SIGNALS:
        # One that is ignored stays so; a handler that isn't Python's can't be put back.
        if signal.getsignal(signum) not in (signal.SIG_IGN, None):
            before[signum] = signal.signal(signum, note)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        if came:
            signal.raise_signal(came[-1])
