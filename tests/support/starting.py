"""The two ways in which a media worker is started, for tests that hold for both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from erv.media.nursery import Nursery
from erv.media.worker_process import Start, start_alone

WAYS = ("alone", "forked")


def nothing() -> None:
    """Prepares nothing."""


@contextmanager
def starting(
    way: str, *functions: Callable[[Any], Any], prepare: Callable[[], None] | None = None
) -> Iterator[Start]:
    """How workers are started that way; where they can't be forked, both are the same."""
    if way == "alone":
        yield start_alone
        return
    with Nursery(prepare or nothing, functions) as nursery:
        yield nursery.start
