"""Keeps freed memory in the process; glibc would return it and fetch it zeroed for the next tensor."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_... of malloc.h
_KEPT = 2**30  # bytes; requests below it come from the heap, and so much of the heap's end stays
_MOST_MAPPED = 2**25  # the largest threshold that glibc takes


def keep_freed_memory() -> bool:
    """Asks glibc to reuse memory; False where there is no glibc or it refuses.

    A training step allocates the same tensors of some megabytes again and again. Without this, each of them
    is a new mapping, whose pages the kernel must clear: 150,000 page faults in a GRPO step of the demo.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # musl has none
        return False
    mapped = mallopt(_MMAP_THRESHOLD, _KEPT) or mallopt(_MMAP_THRESHOLD, _MOST_MAPPED)
    return bool(mapped and mallopt(_TRIM_THRESHOLD, _KEPT))
