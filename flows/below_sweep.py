"""How a process that a sweep has started in a checkout is asked to end: with SIGTERM, by what it notes there.

Between the sweep and it are a guard and its pipes, so the sweep doesn't know its number otherwise.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import FrameType

_NOTE = Path(".erv") / "trial.pid"


def ends_in_order() -> None:
    """Has this process take SIGTERM as Ctrl-C, on which its stages are stopped in order; its folder says so.

    Call it in the main thread, in the checkout.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    _NOTE.write_text(f"{os.getpid()}\n", encoding="utf-8")


def forget(checkout: Path) -> None:
    """Removes the note of a process that was there before; call it before another is started."""
    (checkout / _NOTE).unlink(missing_ok=True)


def ask_to_end(checkout: Path) -> bool:
    """Asks the process to end; returns False if it has not noted itself yet."""
    try:
        os.kill(int((checkout / _NOTE).read_text(encoding="utf-8")), signal.SIGTERM)
    except (OSError, ValueError):
        return False
    return True


def _interrupt(_signum: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt
