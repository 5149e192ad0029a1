"""The process that holds a model, without one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from multiprocessing import Pipe
from typing import Any, cast

import numpy as np

from erv.answering.child import Child
from erv.answering.events import Event
from erv.answering.requests import Request
from erv.answering.streaming import Ready, Streaming
from erv.media.decode import Decoded


class Failing:
    """Fails in a way that nobody thought of."""

    def answer(self, batch: Sequence[Ready]) -> None:
        raise TypeError("nobody thought of this")


def ready(tell: Callable[[Event], None]) -> Ready:
    seen = Decoded(np.zeros((1, 8, 8, 3), np.uint8), None)
    return Ready(Request(clip="a.mp4"), seen, 0.0, 0.0, tell, lambda: False)


def test_a_fault_of_a_batch_is_told_and_does_not_end_the_process() -> None:
    ours, theirs = Pipe()
    child = Child(theirs, cast("Streaming", Failing()), batch=2, decoders=1)

    def tell(number: int) -> Callable[[Event], None]:
        return lambda event: child._tell(number, event)

    child._answer([ready(tell(7)), ready(tell(8))])
    said: list[dict[str, Any]] = [json.loads(ours.recv_bytes()) for _ in range(2)]
    assert [one["number"] for one in said] == [7, 8]
    assert {one["event"]["code"] for one in said} == {"failed"}
