"""Workers that are killed or stopped: noticed within a minute, and another goes on where they were."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable

import pytest

from erv.checkpoints import RECORD
from erv.environment import Environment
from erv.stack.flow_runs import HOLDING
from tests.distributed.topology import Cable, Clone, Worker, gone, runs_of_pool, wait_until

pytestmark = [pytest.mark.distributed, pytest.mark.integration]


@pytest.fixture
def slow(clone: Clone) -> Clone:
    """A clone whose stage takes a while."""
    clone.control("tune", "30 1")
    clone.commit()
    return clone


def test_a_killed_worker(slow: Clone, new_worker: Callable[..., Worker], stack: Environment) -> None:
    """With -9, its whole tree, in the middle of training."""
    one, two = new_worker(), new_worker()
    run = slow.start("run")
    try:
        run.wait_for("kept checkpoint-", 120)
        busy, idle = (one, two) if one.flow_processes() else (two, one)
        killed = busy.signal(signal.SIGKILL)
        at = time.monotonic()
        run.wait_for("another worker is asked", 90)
        assert time.monotonic() - at < 60
        run.wait_for(f"runs on {_host()}:{idle.home}", 90)
        assert run.process.wait(240) == 0, run.text() + idle.background.text()
    finally:
        run.end()
    assert gone(killed)
    assert "goes on from a checkpoint of an earlier attempt" in run.text()
    assert "3 stages: 3 ran" in run.text()
    _steps_are_not_repeated(run.text())
    assert (slow.folder / "trained/weights.txt").read_text().startswith("30 steps")
    assert "up to date" in slow.dvc("status")
    assert sorted(_states_at_the_end(stack)[-2:]) == ["COMPLETED", "CRASHED"]


def test_a_stopped_worker(slow: Clone, new_worker: Callable[..., Worker]) -> None:
    """SIGSTOP: it gives no sign of life, and when it wakes up it changes nothing."""
    one, two = new_worker(), new_worker()
    run = slow.start("run")
    try:
        run.wait_for("kept checkpoint-", 120)
        busy, idle = (one, two) if one.flow_processes() else (two, one)
        stopped = busy.signal(signal.SIGSTOP)
        at = time.monotonic()
        run.wait_for("another worker is asked", 90)
        assert time.monotonic() - at < 60
        run.wait_for(f"runs on {_host()}:{idle.home}", 90)
        for process in stopped:
            process.send_signal(signal.SIGCONT)
        below = [p for p in stopped if p.pid != busy.background.process.pid]
        took = wait_until(lambda: gone(below), 30, "the end of what had been stopped")
        print(f"the woken attempt ended after {took:.0f} s")
        assert run.process.wait(240) == 0, run.text()
    finally:
        run.end()
    assert "3 stages: 3 ran" in run.text()
    assert "up to date" in slow.dvc("status")
    assert list((busy.home / "checkouts").iterdir()) == []


def test_a_worker_that_is_cut_off(slow: Clone, new_worker: Callable[..., Worker], stack: Environment) -> None:
    """Its network alone is gone, until all is over; it goes on training meanwhile, and then adds nothing."""
    cable = Cable(stack)
    cut = new_worker(servers=cable.environment)
    run = slow.start("run")
    try:
        run.wait_for("kept checkpoint-", 120)
        other = new_worker()
        with cable.pulled():
            at = time.monotonic()
            run.wait_for("another worker is asked", 90)
            assert time.monotonic() - at < 60
            run.wait_for(f"runs on {_host()}:{other.home}", 90)
            assert run.process.wait(240) == 0, run.text() + other.background.text()
            attempts = cut.flow_processes()
            assert attempts, "it knows nothing of all this"
            before, states = slow.stored(), _states_at_the_end(stack)
        took = wait_until(lambda: gone(attempts), 120, "the end of the attempt that was cut off")
        print(f"the attempt ended {took:.0f} s after its network was back")
    finally:
        run.end()
        cable.close()
    assert "3 stages: 3 ran" in run.text()
    assert "up to date" in slow.dvc("status")
    after = slow.stored()
    assert before.items() <= after.items(), "nothing was changed or removed"
    # What was on its way may arrive of what nobody reads any more: a pulse, lines, a piece of a checkpoint.
    on_its_way = re.compile(rf"remote/stages/[^/]+/0001/(pulse\.json|log/.*|checkpoints/.*(?<!{RECORD}))")
    assert [key for key in after.keys() - before.keys() if not on_its_way.fullmatch(key)] == []
    # Its run had been called crashed; back again, it says itself that it was given up.
    assert states[-2:] == ["CRASHED", "COMPLETED"]
    later = _states_at_the_end(stack)
    assert later in (states, [*states[:-2], "CANCELLED", "COMPLETED"])
    assert {one.info.status for one in slow.runs()["tune"]} <= {"FINISHED", "KILLED"}
    assert list((cut.home / "checkouts").iterdir()) == []


def test_a_worker_that_is_killed_between_claim_and_start(
    slow: Clone, new_worker: Callable[..., Worker], stack: Environment
) -> None:
    slow.control("tune", "3 0.2")
    slow.commit()
    one = new_worker()
    run = slow.start("run")
    try:
        wait_until(lambda: one.flow_processes(), 120, "the claim")
        at = time.monotonic()
        killed = one.signal(signal.SIGKILL)
        assert "starts at step" not in run.text()
        two = new_worker()
        run.wait_for("another worker is asked", 90)
        noticed = time.monotonic() - at
        print(f"noticed after {noticed:.0f} s")
        assert noticed < 60
        assert run.process.wait(240) == 0, run.text() + two.background.text()
    finally:
        run.end()
    assert gone(killed)
    assert "3 stages: 3 ran" in run.text()
    _states_at_the_end(stack)


def test_an_abandoned_run_of_another_clone_holds_the_only_slot(
    slow: Clone,
    new_clone: Callable[..., Clone],
    new_worker: Callable[..., Worker],
    stack: Environment,
) -> None:
    """Its worker and its coordinator are gone; whoever waits for the slot frees it."""
    other = new_clone(slow.environment.dvc_bucket)
    other.control("tune", "60 1")
    other.commit()
    one = new_worker()
    set_limit(slow, 1)
    abandoned = other.start("run")
    try:
        abandoned.wait_for("step 2", 120)
        abandoned.process.kill()
        one.signal(signal.SIGKILL)
    finally:
        abandoned.end()
    two = new_worker()
    slow.control("tune", "2 0.2")
    slow.commit()
    run = slow.start("run")
    try:
        run.wait_for("freed a slot of work pool 'gpu' that tune held", 150)
        assert run.process.wait(240) == 0, run.text() + two.background.text()
    finally:
        run.end()
        set_limit(slow, 4)
    assert "3 stages: 3 ran" in run.text()


def set_limit(clone: Clone, limit: int) -> None:
    clone.prefect("prefect", "work-pool", "set-concurrency-limit", "gpu", str(limit))


def _states_at_the_end(stack: Environment) -> list[str]:
    """The states of all runs, none of which is left pending or running.

    A coordinator has its result before the worker tells Prefect that the run has ended.
    """

    def states() -> list[str]:
        return [item["state_type"] for item in runs_of_pool(stack)]

    wait_until(lambda: not set(states()) & set(HOLDING), 30, "the end of all flow runs")
    return states()


def _steps_are_not_repeated(text: str) -> None:
    """But for those since the last checkpoint that had reached the store."""
    steps = [int(step) for step in re.findall(r"\bstep (\d+)$", text, re.MULTILINE)]
    assert set(steps) >= {1, 30}
    assert len(steps) - len(set(steps)) <= 12, steps


def _host() -> str:
    import platform

    return platform.node()
