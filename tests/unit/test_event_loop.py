"""Stop signals at the worst moments of an event loop."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from erv.event_loop import run_to_end


class Stop(BaseException):
    """What the handler raises."""


def stop(_: int, __: FrameType | None) -> None:
    raise Stop


@pytest.fixture(autouse=True)
def _handler() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, stop)
    yield
    signal.signal(signal.SIGTERM, before)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_the_result_comes_back() -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 3

    assert run_to_end(work()) == 3
    assert signal.getsignal(signal.SIGTERM) is stop


def test_a_signal_cancels_the_work_and_its_handler_raises_at_the_end() -> None:
    cleaned = []

    async def work() -> None:
        try:
            asyncio.get_running_loop().call_later(0.01, terminate)
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            cleaned.append(True)

    with pytest.raises(Stop):
        run_to_end(work())
    assert cleaned == [True]
    assert signal.getsignal(signal.SIGTERM) is stop


def test_a_signal_that_takes_a_step_out_of_the_queue_does_not_hang() -> None:
    """The handler runs after a step has left the queue of the loop and before it is run.

    With a handler that raises there, the task of that step waits forever.
    """

    class Queue(deque[Any]):
        armed = False

        def popleft(self) -> Any:
            step = super().popleft()
            if self.armed:
                self.armed = False
                terminate()
            return step

    async def step() -> None:
        for _ in range(100):
            await asyncio.sleep(0)

    async def work() -> None:
        loop: Any = asyncio.get_running_loop()
        loop._ready = queue = Queue(loop._ready)
        tasks = [asyncio.create_task(step()) for _ in range(4)]
        await asyncio.sleep(0)
        queue.armed = True
        await asyncio.gather(*tasks)

    with pytest.raises(Stop):
        run_to_end(work())


def test_a_signal_before_the_first_step_counts() -> None:
    begun = []

    async def work() -> None:
        begun.append(True)
        await asyncio.sleep(60)

    class Policy(asyncio.DefaultEventLoopPolicy):
        def new_event_loop(self) -> asyncio.AbstractEventLoop:
            terminate()
            return super().new_event_loop()

    policy = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(Policy())
    try:
        with pytest.raises(Stop):
            run_to_end(work())
    finally:
        asyncio.set_event_loop_policy(policy)
    assert begun == []


def test_a_signal_is_not_lost_if_the_work_swallows_its_cancellation() -> None:
    async def work() -> None:
        terminate()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return

    with pytest.raises(Stop):
        run_to_end(work())


def test_an_error_of_the_work_is_raised() -> None:
    async def work() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run_to_end(work())


_WAITING = """
import asyncio
from erv.event_loop import run_to_end

async def work():
    print("ready", flush=True)
    await asyncio.sleep(60)

try:
    run_to_end(work())
except KeyboardInterrupt:
    raise SystemExit(130)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_signals_without_a_handler_of_ours_do_what_they_always_do(number: int, code: int) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", _WAITING],
        stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert run.stdout is not None
    assert run.stdout.readline() == b"ready\n"
    run.send_signal(number)
    assert run.wait(60) == code
