"""Progress of a long step: tqdm's bar in a terminal, otherwise a log line every few seconds."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 5.0
_LINE = "{desc}: {n_fmt}/{total_fmt}{unit}{postfix} [{elapsed}<{remaining}, {rate_noinv_fmt}]"


class _LogStream:
    """Logs each update that tqdm would draw over its last line as a separate line."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def write(self, text: str) -> None:
        line = text.strip()
        if line:
            self._logger.info("%s", line)

    def flush(self) -> None:
        """Does nothing: there is no buffer."""


def meter(
    what: str, total: int, unit: str, logger: logging.Logger, *, done: int = 0, patient: bool = False
) -> tqdm:
    """Makes a meter; call its `update` for each item done, and close it or use it as a context manager.

    It shows the start, the end, and updates that come some seconds after the last line. Set further text with
    `set_postfix_str(..., refresh=False)`.

    Args:
        what: name of the step.
        total: number of items.
        unit: name of the items, in the plural.
        logger: gets the lines if stderr is not a terminal.
        done: number of items done before; they don't count towards the speed.
        patient: show nothing in the first seconds, and so nothing at all for a short step.
    """
    shown: dict[str, Any] = {"file": sys.stderr}
    if not sys.stderr.isatty():
        # miniters=0: an update by 0 (while a large file is read) can also be due for display.
        shown = {"file": _LogStream(logger), "mininterval": SECONDS_BETWEEN_LINES, "bar_format": _LINE}
    return tqdm(
        desc=what,
        total=total,
        unit=f" {unit}",
        initial=done,
        miniters=0,
        smoothing=0,  # the average speed since the start, not that of the last second
        position=0,
        delay=SECONDS_BETWEEN_LINES if patient else 0,
        dynamic_ncols=True,
        **shown,
    )


def ticker(bar: tqdm, fault: str, *, seen: int = 0) -> Callable[[bool], None]:
    """Makes a function to call for each item done with whether it was faulty; the meter shows the number.

    Args:
        bar: the meter.
        fault: the word after the number.
        seen: number of faulty items so far.
    """
    count = seen

    def tick(faulty: bool) -> None:
        nonlocal count
        count += faulty
        bar.set_postfix_str(f"{count} {fault}", refresh=False)
        bar.update()

    return tick
