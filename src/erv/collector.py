"""Python's garbage collector, set for processes that import large libraries and live for one task.

Importing torch, TRL or Prefect makes millions of objects that live as long as the process. With Python's own
settings the collector walks through them again and again during the import, and once more at the end, when
the memory is about to be returned anyway. Together that is a third of the CPU time of a process that does
nothing else.
"""

from __future__ import annotations

import atexit
import gc

_OBJECTS = 10_000  # new objects between two collections of the youngest; Python's default is 700
_YOUNG, _OLD = 20, 100  # collections of one generation between two of the next


def collect_seldom() -> None:
    """Collects seldom, and not at all at the end of the process; call it before the large imports.

    Reference counting frees almost everything without the collector, tensors above all, so memory stays what
    it is.
    """
    gc.set_threshold(_OBJECTS, _YOUNG, _OLD)
    # Registered early, so it runs after the exit handlers of all libraries, whose objects are frozen too.
    atexit.register(gc.freeze)
