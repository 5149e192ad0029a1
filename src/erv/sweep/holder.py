"""Which process works on a sweep, as that process notes it: who only looks leaves the sweep's lock alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from erv.errors import DataError
from erv.files import read_document, write_document
from erv.tracking.header import RunHeader

FILE = "holder.json"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Notes this process in the sweep's folder while the block runs; hold the lock."""
    import psutil

    path = folder / FILE
    write_document({"pid": os.getpid(), "created": psutil.Process().create_time()}, path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def is_held(folder: Path) -> bool:
    """Whether a live process has noted itself there; one that was killed has left its note."""
    try:
        noted = read_document(folder / FILE, "sweep")
        return RunHeader("", "", 0, pid=int(noted["pid"]), created=float(noted["created"])).owner_lives()
    except (DataError, OSError, KeyError, TypeError, ValueError):  # none, or cut short by a kill
        return False
