"""Reports the progress of a teacher."""

from __future__ import annotations

import logging
import time

logger = logging.getLogger("erv.distill.teachers")


class Progress:
    """Logs about ten times how many sentences are done and how long the rest will take.

    Args:
        name: of the teacher.
        total: sentences to ask, without those already known.
    """

    def __init__(self, name: str, total: int) -> None:
        self._name, self._total, self._done = name, total, 0
        self._began = time.monotonic()

    def add(self, sentences: int = 1) -> None:
        """Adds to the number of sentences done."""
        before = self._done * 10 // self._total
        self._done += sentences
        if self._done * 10 // self._total > before:
            left = (time.monotonic() - self._began) / self._done * (self._total - self._done)
            logger.info("%s: %d of %d sentences, %s", self._name, self._done, self._total, _spoken(left))


def _spoken(seconds: float) -> str:
    if seconds < 1:
        return "under a second left"
    if seconds < 90:
        return f"about {seconds:.0f} s left"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} min left"
    return f"about {seconds / 3600:.1f} h left"
