"""Shows on stderr what a long command logs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def progress_shown() -> Iterator[None]:
    """Shows the progress that `erv` logs where stderr is not a terminal."""
    logger, handler = logging.getLogger("erv"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    before, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        logger.propagate = propagate
