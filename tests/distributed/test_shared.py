"""Several coordinators, known results, refusals, and what is told when nobody comes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from erv.environment import Environment
from tests.distributed.topology import Clone, Worker, runs_of_pool

pytestmark = [pytest.mark.distributed, pytest.mark.integration]


def test_two_coordinators_run_it_once(
    stack: Environment, clone: Clone, new_clone: Callable[..., Clone], new_worker: Callable[..., Worker]
) -> None:
    """At the same time, on two workers; and a third comes when it is over."""
    other, third = new_clone(clone.environment.dvc_bucket), new_clone(clone.environment.dvc_bucket)
    for one in (clone, other, third):
        one.control("tune", "15 1")
        one.commit()
    before = len(runs_of_pool(stack))
    workers = [new_worker(), new_worker()]
    runs = [clone.start("run"), other.start("run")]
    try:
        for run in runs:
            run.wait_for("starts at step 0", 120)
        codes = [run.process.wait(240) for run in runs]
    finally:
        for run in runs:
            run.end()
    assert codes == [0, 0], "\n".join(run.text() for run in runs)
    assert len(runs_of_pool(stack)) == before + 1
    assert sum(len(one.runs().get("tune", [])) for one in (clone, other)) == 1, "of whoever was first"
    assert (clone.folder / "dvc.lock").read_text() == (other.folder / "dvc.lock").read_text()
    for one in (clone, other):
        assert "up to date" in one.dvc("status")
        assert "3 stages: 3 unchanged" in one.erv("run").stdout
    for worker in workers:
        worker.end()
    late = third.erv("run")
    assert "3 stages: " in late.stdout
    assert len(runs_of_pool(stack)) == before + 1, "nobody was needed"
    assert "up to date" in third.dvc("status")


def test_a_cancelled_coordinator_leaves_it_to_the_other(
    stack: Environment, clone: Clone, new_clone: Callable[..., Clone], new_worker: Callable[..., Worker]
) -> None:
    import signal

    other = new_clone(clone.environment.dvc_bucket)
    for one in (clone, other):
        one.control("tune", "20 1")
        one.commit()
    new_worker()
    runs = [clone.start("run"), other.start("run")]
    try:
        for run in runs:
            run.wait_for("starts at step 0", 120)
        runs[0].process.send_signal(signal.SIGINT)
        assert runs[0].process.wait(60) == 130
        assert runs[1].process.wait(240) == 0, runs[1].text()
    finally:
        for run in runs:
            run.end()
    assert "somebody else waits for it too" in runs[0].text()
    assert "attempt" not in runs[1].text()


def test_what_is_refused_and_what_is_carried(clone: Clone, new_worker: Callable[..., Worker]) -> None:
    clone.place("{tune: nosuch}")
    said = clone.erv("run", check=False)
    assert said.returncode == 1
    assert "work pool 'nosuch', which Prefect doesn't have; `erv run --worker --pool nosuch`" in said.stderr
    clone.place("{tnue: gpu}")
    said = clone.erv("run", check=False)
    assert "placement names tnue, which is no stage of dvc.yaml" in said.stderr
    clone.place("{tune: gpu}")
    worker = new_worker()
    work = clone.folder / "work.py"
    work.write_text(work.read_text().replace("{steps} steps", "{steps} other steps"))
    said = clone.erv("run", check=False)
    assert said.returncode == 1
    assert "uncommitted changes in work.py" in said.stderr
    assert not (clone.folder / "first.txt").exists(), "nothing has run"
    clone.place("{tune: gpu}", carry_changes="true")
    said = clone.erv("run", check=False)
    assert said.returncode == 0, said.stdout + said.stderr + worker.background.text()
    assert (clone.folder / "trained/weights.txt").read_text().startswith("3 other steps")
    (run,) = clone.runs()["tune"]
    assert len(run.data.tags["erv.patch"]) == 64
    assert run.data.tags["erv.git_dirty"] == "true"
    assert "up to date" in clone.dvc("status")
    # By hand, it doesn't run here.
    clone.control("tune", "4 0.1")
    by_hand = clone.python("-m", "dvc", "repro", "tune", check=False)
    assert by_hand.returncode != 0
    assert "its placement sends this stage to work pool 'gpu'" in by_hand.stdout + by_hand.stderr


def test_a_failure_comes_back_in_its_own_words(clone: Clone, new_worker: Callable[..., Worker]) -> None:
    clone.control("tune", "2 0.1 fail")
    clone.commit()
    new_worker()
    said = clone.erv("run", check=False)
    assert said.returncode == 1
    assert "tune: the loss is not finite; lower grpo.learning_rate (it ran on " in said.stderr
    (run,) = clone.runs()["tune"]
    assert run.info.status == "FAILED"
    again = clone.erv("run", check=False)
    assert again.returncode == 1
    assert "goes on from a checkpoint of an earlier attempt, step 2" in again.stderr + again.stdout


def test_two_workers_share_a_home(
    clone: Clone, new_clone: Callable[..., Clone], new_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """Each leaves the other's checkout alone, and nothing of the home is removed while a stage runs."""
    home = tmp_path / "shared home"
    old = home / "cache/files/md5/ab/cdef"
    old.parent.mkdir(parents=True)
    old.write_text("old")
    os.utime(old, (1, 1))
    other = new_clone(clone.environment.dvc_bucket)
    for one, steps in ((clone, "40 1"), (other, "41 1")):
        one.control("tune", steps)
        one.commit()
    workers = [new_worker(ERV_WORKER_HOME=str(home), ERV_WORKER_KEEP_DAYS="0") for _ in range(2)]
    runs = [clone.start("run"), other.start("run")]
    try:
        for run in runs:
            run.wait_for("step 1", 150)
        scratch = workers[0].scratch
        said = scratch.erv("gc").stdout
        assert f"{home}: 2 stages run there, so nothing was removed" in said
        assert old.is_file()
        for run in runs:
            assert run.process.wait(240) == 0, run.text()
    finally:
        for run in runs:
            run.end()
    for run in runs:
        assert "3 stages: 3 ran" in run.text()
    assert list((home / "checkouts").iterdir()) == []
    assert f"{home}: removed 1 file and 0 commits" in scratch.erv("gc").stdout
    assert not old.exists()


def test_other_inputs_are_told_before_the_work(clone: Clone, new_worker: Callable[..., Worker]) -> None:
    """git gives the worker other bytes than those that are here; it was told after hours of training."""
    (clone.folder / ".gitattributes").write_text("control/tune.txt text eol=crlf\n")
    clone.control("tune", "3 0.2\n")
    clone.commit()
    new_worker()
    said = clone.erv("run", check=False)
    assert said.returncode == 1
    assert "tune: here it reads other inputs than " in said.stderr
    assert "starts at step" not in said.stdout + said.stderr


def test_nobody_comes(clone: Clone) -> None:
    clone.place("{tune: lonely}", placement_wait_minutes="0.1")
    clone.prefect("flows.shared_pools", "lonely")
    said = clone.erv("run", check=False)
    assert said.returncode == 1
    assert "no worker serves work pool 'lonely'; start `erv run --worker --pool lonely`" in said.stderr
    assert "no worker has served work pool 'lonely' for 0.1 minutes" in said.stderr
