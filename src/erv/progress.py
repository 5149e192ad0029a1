"""How far a long step is: tqdm's bar in a terminal; elsewhere a line in the log every few seconds."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 5.0
_LINE = "{desc}: {n_fmt}/{total_fmt}{unit}{postfix} [{elapsed}<{remaining}, {rate_noinv_fmt}]"


class _LogStream:
    """Takes what tqdm would draw over the line before, and logs it as a line of its own."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def write(self, text: str) -> None:
        line = text.strip()
        if line:
            self._logger.info("%s", line)

    def flush(self) -> None:
        """Nothing waits."""


def meter(
    what: str, total: int, unit: str, logger: logging.Logger, *, done: int = 0, patient: bool = False
) -> tqdm:
    """A meter; call its `update` for each thing done, and close it or use it as a context manager.

    It shows the start, the end, and what an `update` finds some seconds after the last line. What else is to
    be seen is set with `set_postfix_str(..., refresh=False)`.

    Args:
        what: is measured.
        total: things to do.
        unit: what they are, in the plural.
        logger: gets the lines where stderr is no terminal.
        done: how many were done before; they don't count for the speed.
        patient: shows nothing in the first seconds, and so nothing at all of what is done by then.
    """
    shown: dict[str, Any] = {"file": sys.stderr}
    if not sys.stderr.isatty():
        # miniters=0: also an update by 0, of what is read of a large file, may be due to be shown.
        shown = {"file": _LogStream(logger), "mininterval": SECONDS_BETWEEN_LINES, "bar_format": _LINE}
    return tqdm(
        desc=what,
        total=total,
        unit=f" {unit}",
        initial=done,
        miniters=0,
        smoothing=0,  # the speed since the start, not that of the last second
        position=0,
        delay=SECONDS_BETWEEN_LINES if patient else 0,
        dynamic_ncols=True,
        **shown,
    )


def ticker(bar: tqdm, fault: str, *, seen: int = 0) -> Callable[[bool], None]:
    """A function to call for each thing done, with whether it was faulty: the meter shows how many were.

    Args:
        bar: the meter.
        fault: the word behind their number.
        seen: how many there were before.
    """
    count = seen

    def tick(faulty: bool) -> None:
        nonlocal count
        count += faulty
        bar.set_postfix_str(f"{count} {fault}", refresh=False)
        bar.update()

    return tick
