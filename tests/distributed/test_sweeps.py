"""Trials of a sweep on workers: in their share of the pool, next to somebody's single run."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from erv.environment import Environment
from erv.stack.pools import workers_online
from erv.stack.sweep_queue import QUEUE
from tests.distributed.topology import Worker, runs_of_pool, wait_until
from tests.integration.prefect_api import ask
from tests.integration.sweeping import SweepClone, size_of

pytestmark = [pytest.mark.distributed, pytest.mark.integration]


def placed(folder: Path, stack: Environment) -> SweepClone:
    clone = SweepClone(folder / f"clone-{uuid.uuid4().hex[:6]}", stack, steps=10, pace=1.0)
    clone.set("placement: {} ", "placement: {sft: gpu} ")
    clone.commit()
    clone.erv("run", "first")
    return clone


def test_trials_run_there_and_leave_a_worker_to_others(
    stack: Environment, tmp_path: Path, new_worker: Callable[..., Worker]
) -> None:
    clone, other = placed(tmp_path, stack), placed(tmp_path, stack)
    before = len(runs_of_pool(stack))  # of other tests
    workers = [new_worker(LEDGER=str(clone.ledger), PACE="2.0") for _ in range(2)]
    # Prefect counts those that other tests have killed for a minute or two.
    wait_until(lambda: workers_online(stack, "gpu") == 2, 240, "the end of other workers")
    # The sizes are 16, 9, 57 (which fails) and 46 (which is worse than the first two at each step).
    given = ("--over", "sft.batch_size=1:60", "--seed", "277", "--prune-after", "2", "--no-propose")
    sweep = clone.start("sweep", "run", "placed", *given, "--trials", "4", "--at-a-time", "2")
    sweep.wait_for("[trial 0] [sft] INFO step 1", 240)
    assert ask(stack, f"/work_pools/gpu/queues/{QUEUE}")["concurrency_limit"] == 1, "of two workers"

    single = other.erv("run", "sft", "--set", "sft.batch_size=3")
    assert "sft    ran" in single.stdout, single.stdout
    assert sweep.process.wait(400) == 0, sweep.text()
    sweep.end()
    rows = {size_of(row): row["state"].split(" at ")[0] for row in clone.table("placed")}
    assert rows == {16: "done", 9: "done", 57: "failed", 46: "pruned"}
    ours = sorted(runs_of_pool(stack)[before:], key=lambda run: run["start_time"])
    mine = [run["parameters"]["bucket"] == other.environment.dvc_bucket for run in ours]
    assert mine.index(True) in (1, 2), "it began at once, beside the trial of then"
    # That of the pruned trial was stopped there, and its slot is free.
    wait_until(
        lambda: not any("work.py" in " ".join(p.cmdline()) for w in workers for p in w.tree()), 20, "it"
    )
    states = [run["state_type"] for run in runs_of_pool(stack)[before:]]
    assert set(states) <= {"COMPLETED", "FAILED", "CANCELLED"}, states
    assert "CANCELLED" in states
    sizes = [line.split()[0] for line in clone.attempts()]
    assert sorted(sizes) == sorted(["3", "16", "9", "57", "46"])
