"""Work that goes on in a thread while the flow does something else."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from erv.pipeline.undisturbed import undisturbed

Task = Callable[[Callable[[], bool]], Any]


@contextmanager
def meanwhile(task: Task) -> Iterator[None]:
    """Runs a task while the block runs, and leaves the block when both are done.

    Args:
        task: takes a function that says whether to stop, which is so once the block has failed.

    Raises:
        Exception: the block's, or else the task's.
    """
    failed = threading.Event()
    pool = ThreadPoolExecutor(1, "meanwhile")
    # In the context of the flow, where Prefect keeps its loggers and settings.
    future = pool.submit(contextvars.copy_context().run, task, failed.is_set)
    try:
        yield
        future.result()
    except BaseException:  # SIGTERM and Ctrl-C too
        failed.set()
        raise
    finally:
        with undisturbed():
            pool.shutdown()
