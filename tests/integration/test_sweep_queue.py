"""Hundreds of trials in a shared pool of a real Prefect server: they take turns, and leave a slot to others.

What runs a run is a stand-in that asks the server for work as Prefect's workers do, so that hundreds fit into
a minute; who gets a slot when is decided by the server alone.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from erv.environment import Environment, child_environment
from erv.stack import flow_runs
from erv.stack.prefect_api import ask
from erv.stack.sweep_queue import QUEUE, SweepQueue, limit_of
from tests.conftest import ROOT

pytestmark = pytest.mark.integration

POOL, SLOTS, WORKERS = "fair", 6, 4


@pytest.mark.parametrize(
    ("pool", "workers", "spare", "limit"),
    [
        (4, 9, 1, 3),
        (None, 3, 1, 2),
        (4, 2, 1, 1),
        (1, 5, 1, 1),
        (4, 0, 1, 1),
        (4, 4, 0, 4),
        (8, 8, 3, 5),
        (8, None, 1, 7),
        (1, None, 1, 1),
        (None, None, 1, None),
    ],
)
def test_how_many_trials_run_at_a_time(
    pool: int | None, workers: int | None, spare: int, limit: int | None
) -> None:
    assert limit_of(pool, workers, spare) == limit


class Workers:
    """Four workers with a slot each, which finish what they have in one turn, or in some more."""

    def __init__(self, stack: Environment) -> None:
        self._stack = stack
        self.running: dict[str, tuple[str, int]] = {}  # id -> name, turns left
        self.begun: list[str] = []
        self.most = 0
        self.online()

    def online(self) -> None:
        for number in range(WORKERS):
            body = {"name": f"worker-{number}", "heartbeat_interval_seconds": 600}
            ask(self._stack, f"/work_pools/{POOL}/workers/heartbeat", body)

    def turn(self) -> list[str]:
        """Ends what is due, and takes what the server offers for free slots; returns who ended."""
        ended = []
        for run_id, (name, left) in list(self.running.items()):
            if left:
                self.running[run_id] = (name, left - 1)
            else:
                self._state(run_id, "COMPLETED")
                del self.running[run_id]
                ended.append(name)
        offered = ask(self._stack, f"/work_pools/{POOL}/get_scheduled_flow_runs", {})
        for item in offered[: WORKERS - len(self.running)]:
            run = item["flow_run"]
            self._state(run["id"], "PENDING")
            self._state(run["id"], "RUNNING")
            self.running[run["id"]] = (run["name"], 0 if run["name"].startswith("sweep") else 1)
            self.begun.append(run["name"])
        self.most = max(self.most, sum(name.startswith("sweep") for name, _ in self.running.values()))
        return ended

    def _state(self, run_id: str, state: str) -> None:
        content = {"state": {"type": state, "name": state.capitalize()}, "force": True}
        ask(self._stack, f"/flow_runs/{run_id}/set_state", content)


def start(stack: Environment, name: str, queue: str | None) -> None:
    found = flow_runs.start(
        stack,
        f"run-stage/{POOL}",
        {"stage": "grpo@erv", "key": name, "attempt": 1, "bucket": "b", "pool": POOL},
        name=name,
        once=name,
        queue=queue,
    )
    assert found is not None


def test_two_sweeps_and_others_share_a_pool(stack: Environment) -> None:
    variables = child_environment(stack, {"PATH": "/usr/bin", "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"})
    command = [sys.executable, "-m", "flows.shared_pools", POOL]
    subprocess.run(command, check=True, env=variables, cwd=ROOT, capture_output=True)
    ask(stack, f"/work_pools/{POOL}", {"concurrency_limit": SLOTS}, method="PATCH")
    workers, total, at_a_time = Workers(stack), 100, 8
    SweepQueue(stack, 1).keep(POOL)
    queue = ask(stack, f"/work_pools/{POOL}/queues/{QUEUE}")
    assert queue["concurrency_limit"] == WORKERS - 1
    assert queue["priority"] > ask(stack, f"/work_pools/{POOL}/queues/default")["priority"]

    # Each sweep keeps eight in flight, as `--at-a-time 8` does; the second begins later.
    asked, done = Counter[str](), Counter[str]()

    def fill(sweep: str) -> None:
        while asked[sweep] < total and asked[sweep] - done[sweep] < at_a_time:
            start(stack, f"sweep {sweep} {asked[sweep]}", QUEUE)
            asked[sweep] += 1

    fill("a")
    waited: dict[str, int] = {}
    turn = 0
    while done.total() < 2 * total:
        turn += 1
        if turn >= 5:
            fill("b")
        if turn in (12, 20, 30):  # somebody's single stages, of which two come at once
            for number in range(2 if turn == 20 else 1):
                start(stack, f"single {turn} {number}", None)
                waited[f"single {turn} {number}"] = turn
        for name in workers.turn():
            kind, sweep, *_ = name.split()
            if kind == "sweep":
                done[sweep] += 1
                fill(sweep)
        for name in [name for name in waited if name in workers.begun]:
            assert turn - waited.pop(name) <= 1, f"{name} had to wait behind trials"
        if turn == 45:  # both have had as many slots by and large
            assert min(done.values()) > 0.6 * (max(done.values()) - 12), done
        assert turn < 400, (done, asked)
    assert not waited
    assert workers.most == WORKERS - 1, "one slot is left to others, and all others are used"
    assert len(set(workers.begun)) == len(workers.begun) == 2 * total + 4


def test_the_limit_follows_the_workers(stack: Environment) -> None:
    variables = child_environment(stack, {"PATH": "/usr/bin", "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"})
    command = [sys.executable, "-m", "flows.shared_pools", "few"]
    subprocess.run(command, check=True, env=variables, cwd=ROOT, capture_output=True)
    SweepQueue(stack, 1).keep("few")
    assert ask(stack, f"/work_pools/few/queues/{QUEUE}")["concurrency_limit"] == 1
    for number in range(3):
        body = {"name": f"worker-{number}", "heartbeat_interval_seconds": 600}
        ask(stack, "/work_pools/few/workers/heartbeat", body)
    SweepQueue(stack, 1).keep("few")
    assert ask(stack, f"/work_pools/few/queues/{QUEUE}")["concurrency_limit"] == 2
    SweepQueue(stack, 0).keep("few")
    assert ask(stack, f"/work_pools/few/queues/{QUEUE}")["concurrency_limit"] == 3
