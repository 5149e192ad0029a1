"""Work beside the flow: nothing of it is left when the block is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from flows.meanwhile import meanwhile


def test_the_block_is_left_when_both_are_done() -> None:
    done: list[str] = []

    def task(_stopped: Callable[[], bool]) -> None:
        time.sleep(0.2)
        done.append("task")

    with meanwhile(task):
        done.append("block")
    assert done == ["block", "task"]


def test_an_error_of_the_block_stops_the_task() -> None:
    running, stopped = threading.Event(), threading.Event()

    def task(asked: Callable[[], bool]) -> None:
        running.set()
        while not asked():
            time.sleep(0.01)
        stopped.set()
        raise ValueError("stopped")  # as a cancelled push does

    def interrupted() -> None:
        with meanwhile(task):
            assert running.wait(60)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert stopped.is_set()


def test_an_error_of_the_task_is_raised_after_the_block() -> None:
    done: list[str] = []

    def task(_stopped: Callable[[], bool]) -> None:
        raise ValueError("not stored")

    def flow() -> None:
        with meanwhile(task):
            time.sleep(0.1)
            done.append("block")

    with pytest.raises(ValueError, match="not stored"):
        flow()
    assert done == ["block"]
