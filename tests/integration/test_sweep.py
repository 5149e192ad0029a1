"""Sweeps on real servers: trials in checkouts, one pruned, one failing, a kill in the middle."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from erv.environment import Environment
from erv.stack import flow_runs
from erv.sweep.folder import Folder
from tests.integration.prefect_api import ask
from tests.integration.scratch import seen_free, wait_until
from tests.integration.sweeping import SweepClone, size_of

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1200)]

OVER = ("--over", "sft.batch_size=1:60")
# With this seed the sizes are 16, 9, 57 (which fails) and 46 (which is worse than both at each step).
SEED = ("--seed", "277", "--prune-after", "2")


@pytest.fixture
def clone(stack: Environment, tmp_path: Path) -> SweepClone:
    # Bucket and experiment are named after the folder.
    made = SweepClone(tmp_path / f"clone-{uuid.uuid4().hex[:6]}", stack, steps=10, pace=0.8)
    made.erv("run", "first")
    return made


def tracked(clone: SweepClone) -> dict[str, list[Any]]:
    """The MLflow runs by kind, stages by name."""
    found: dict[str, list[Any]] = {}
    for runs in clone.runs().values():
        for run in runs:
            found.setdefault(run.data.tags.get("erv.kind", run.info.run_name), []).append(run)
    return found


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence of a command that failed."""
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


def state_of(clone: SweepClone) -> dict[str, str]:
    """What a user would see change: files that git knows, and their content."""
    git = ["git", "-C", str(clone.folder)]
    status = subprocess.run([*git, "status", "--porcelain"], check=True, capture_output=True, text=True)
    return {"status": status.stdout} | {
        name: (clone.folder / name).read_text() for name in ("params.yaml", "dvc.lock")
    }


def test_one_is_pruned_one_fails_and_a_kill_loses_nothing(stack: Environment, clone: SweepClone) -> None:
    before = state_of(clone)
    with Folder(clone.environment, "sizes").alone():
        twice = clone.erv("sweep", "run", "sizes", *OVER, check=False)
    assert twice.returncode == 1
    assert "sweep 'sizes' runs already in" in error_of(twice)
    first = clone.start("sweep", "run", "sizes", *OVER, *SEED, "--trials", "4")
    first.wait_for("[trial 1] [sft] INFO step 4", 180)
    first.process.send_signal(signal.SIGKILL)
    first.end()
    wait_until(lambda: not clone.processes_below(), 30)

    done = clone.erv("sweep", "run", "sizes", check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "trial 1 was interrupted; it goes on" in said
    assert "2 done, 1 pruned, 1 failed; best is trial 2, loss 0.9" in done.stdout, said
    assert "to have it here: erv run sft --set sft.batch_size=9" in done.stdout
    assert clone.processes_below() == []

    # Nothing was done twice, and what was interrupted went on from a checkpoint.
    attempts = clone.attempts()
    assert [attempts[0], attempts[1], *attempts[3:]] == ["16 from 0", "9 from 0", "57 from 0", "46 from 0"]
    size, _, step = attempts[2].partition(" from ")
    assert size == "9"
    assert int(step) >= 3
    rows = {size_of(row): row for row in clone.table("sizes")}
    assert {size: row["state"].split(" at ")[0] for size, row in rows.items()} == {
        16: "done",
        9: "done",
        57: "failed",
        46: "pruned",
    }
    assert rows[9]["loss"] == "0.9"
    assert "lower sft.batch_size" in rows[57]["note"]
    # What trials need is linked from the clone's cache, not made or fetched again.
    text = first.log.read_text()
    assert "[trial 0] [first] Stage 'first' didn't change, skipping" in text
    assert not (clone.folder / ".dvc/cache/files/md5/files").exists()
    # The clone is as it was, and no checkout is left.
    assert state_of(clone) == before
    assert list((clone.folder / ".erv/sweeps/sizes/trials").iterdir()) == []
    _check_mlflow(clone)
    _check_prefect(stack)

    # The command that the user was told restores the best, and trains nothing.
    again = clone.erv("run", "sft", "--set", "sft.batch_size=9")
    assert "sft    restored" in again.stdout, again.stdout
    assert clone.attempts() == attempts
    assert (clone.folder / "models/policy/sft/weights.txt").read_text() == "9\n"

    # Asked again, it has nothing to do but to say what there is.
    more = clone.erv("sweep", "run", "sizes")
    assert "best is trial 2" in more.stdout
    assert clone.attempts() == attempts
    other = clone.erv("sweep", "run", "sizes", "--over", "sft.batch_size=1:9", check=False)
    assert "was begun with another state of" in error_of(other)


def _check_mlflow(clone: SweepClone) -> None:
    runs = tracked(clone)
    (parent,) = runs["sweep"]
    assert parent.info.status == "FINISHED"
    assert parent.data.params["over.sft.batch_size"] == "1:60"
    assert parent.data.tags["erv.sweep_best"] == "2"
    trials = {run.data.params["sft.batch_size"]: run for run in reversed(runs["trial"])}  # the newest last
    assert {size: run.data.tags["erv.sweep_state"] for size, run in trials.items()} == {
        "16": "COMPLETE",
        "9": "COMPLETE",
        "57": "FAIL",
        "46": "PRUNED",
    }
    assert {run.data.tags["mlflow.parentRunId"] for run in runs["trial"]} == {parent.info.run_id}
    assert trials["9"].data.metrics["sweep/value"] == pytest.approx(0.9)
    assert "validation_loss" in trials["46"].data.metrics, "the series is in the run of the trial"
    stages = {run.data.tags["mlflow.parentRunId"]: run for run in runs["sft"]}
    assert stages[trials["46"].info.run_id].info.status == "KILLED", "it was stopped in order"
    assert stages[trials["57"].info.run_id].info.status == "FAILED"
    # The best went the way of any run of the pipeline.
    proposed = [run for run in runs["flow"] if "erv.sweep_trial" in run.data.tags]
    assert [run.data.tags["erv.sweep_trial"] for run in proposed] == ["2"]
    assert proposed[0].data.tags["mlflow.parentRunId"] == parent.info.run_id


def _check_prefect(stack: Environment) -> None:
    flows = ask(stack, "/flow_runs/filter", {"limit": 200})
    assert {run["state_type"] for run in flows} <= {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}
    found = ask(
        stack, "/artifacts/latest/filter", {"artifacts": {"key": {"any_": ["sweep-sizes"]}}, "limit": 1}
    )
    rows = json.loads(found[0]["data"])
    assert [row["state"].split(" at ")[0] for row in rows] == ["done", "done", "failed", "pruned"]


def test_too_many_failures_end_it_with_one_sentence(clone: SweepClone) -> None:
    clone.pace = 0.1
    command = ("sweep", "run", "failing", "--over", "sft.batch_size=7,17,27", "--most-failed", "1")
    done = clone.erv(*command, "--no-propose", "--trials", "9", check=False)
    assert done.returncode == 1
    last = error_of(done)
    assert last.startswith("error: sweep 'failing': 2 trials failed, more than the 1 that may"), last
    assert "lower sft.batch_size" in last
    assert [row["state"] for row in clone.table("failing")] == ["failed", "failed"]


def test_if_all_trials_failed_the_reason_is_told(clone: SweepClone) -> None:
    command = ("sweep", "run", "all", "--over", "sft.batch_size=7,17", "--no-propose", "--trials", "1")
    last = error_of(clone.erv(*command, check=False))
    assert last.startswith("error: sweep 'all': no trial finished (1 failed); the last, sft."), last
    assert " failed because sft: the loss is not finite; lower sft.batch_size; mend that, and" in last
    assert last.endswith("`erv sweep run all --trials 2` goes on")


def test_a_value_that_is_no_number_is_a_failure(clone: SweepClone) -> None:
    clone.pace = 0.1
    command = ("sweep", "run", "diverging", "--over", "sft.batch_size=3,13", "--most-failed", "0")
    done = clone.erv(*command, "--no-propose", "--trials", "3", check=False)
    assert done.returncode == 1
    assert "sft: validation_loss is nan, which can't be compared" in error_of(done)
    assert "UserWarning" not in done.stdout + done.stderr
    assert [row["state"] for row in clone.table("diverging")] == ["failed"]
    assert [run.data.tags["erv.sweep_state"] for run in tracked(clone)["trial"]] == ["FAIL"]


def test_ctrl_c_stops_everything_and_the_sweep_goes_on_later(clone: SweepClone) -> None:
    command = ("sweep", "run", "stopped", *OVER, "--no-propose", "--at-a-time", "2")
    running = clone.start(*command, "--trials", "2")
    running.wait_for("[trial 0] [sft] INFO step 2", 180)
    running.wait_for("[trial 1] [sft] INFO step 2", 60)
    running.process.send_signal(signal.SIGINT)
    folder = clone.folder / ".erv/sweeps/stopped"
    assert not seen_free(folder / "lock", folder / "flow_run", clone.processes_below)
    assert running.process.wait(60) == 130, running.text()
    running.end()
    wait_until(lambda: not clone.processes_below(), 10)
    assert [row["state"] for row in clone.table("stopped")] == ["interrupted", "interrupted"]
    assert {run.info.status for run in tracked(clone)["sweep"]} == {"KILLED"}
    clone.erv("sweep", "run", "stopped")
    assert [row["state"] for row in clone.table("stopped")] == ["done", "done"]
    starts = [int(line.rpartition(" ")[2]) for line in clone.attempts()]
    assert starts[:2] == [0, 0]
    assert all(step >= 1 for step in starts[2:])


def test_the_proposal_is_cancelled_like_any_run_and_goes_on_later(
    stack: Environment, clone: SweepClone
) -> None:
    clone.pace, clone.last = 0.1, 300.0
    running = clone.start("sweep", "run", "proposed", *OVER, "--trials", "1")
    running.wait_for("[last] INFO begins", 240)
    flows = ask(
        stack, "/flow_runs/filter", {"flows": {"name": {"any_": ["sweep"]}}, "sort": "START_TIME_DESC"}
    )
    flow_runs.set_state(stack, flows[0]["id"], "CANCELLING", "by a test")
    asked = time.monotonic()
    assert running.process.wait(60) == 130, running.text()
    assert time.monotonic() - asked < 25, running.text()
    running.end()
    errors = [line for line in running.text().splitlines() if line.startswith("error: ")]
    assert errors == ["error: cancelled; `erv sweep run proposed` goes on with it"]
    assert clone.processes_below() == []
    (proposal,) = [run for run in tracked(clone)["flow"] if "erv.sweep_trial" in run.data.tags]
    assert proposal.info.status == "KILLED", "it was stopped in order"

    attempts, clone.last = clone.attempts(), 0.0
    done = clone.erv("sweep", "run", "proposed")
    assert "1 done; best is trial 0" in done.stdout
    assert clone.attempts() == attempts


def test_a_locked_study_ends_it_with_one_sentence_and_loses_nothing(clone: SweepClone) -> None:
    command = ("sweep", "run", "locked", *OVER, *SEED, "--no-propose", "--trials", "2")
    running = clone.start(*command, "--at-a-time", "2")
    running.wait_for("[trial 0] [sft] INFO step 9", 180)
    study = clone.folder / ".erv/sweeps/locked/study.db"
    with closing(sqlite3.connect(study, timeout=60)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert running.process.wait(200) == 1, running.text()
    running.end()
    (said,) = [line for line in running.text().splitlines() if line.startswith("error: ")]
    assert said.startswith(f"error: {study}: database is locked, and that trial ")
    assert "isn't noted yet; close what else uses the file, or restore it, and `erv sweep run locked`" in said
    assert {run.info.status for run in tracked(clone)["sweep"]} == {"FAILED"}
    wait_until(lambda: not clone.processes_below(), 10)
    assert {row["state"] for row in clone.table("locked")} == {"interrupted"}
    before = clone.attempts()
    clone.erv("sweep", "run", "locked")
    rows = {size_of(row): (row["state"], row["loss"]) for row in clone.table("locked")}
    assert rows == {16: ("done", "1.6"), 9: ("done", "0.9")}
    finished = int(said.partition("is worth ")[2].split(" ")[0].replace(".", ""))
    again = [line.split(" from ") for line in clone.attempts()[len(before) :]]
    assert str(finished) not in [size for size, _ in again], "DVC's cache has what it trained"
    assert all(int(step) >= 1 for _, step in again), "the other goes on from a checkpoint"


def test_what_trials_need_must_be_up_to_date(stack: Environment, tmp_path: Path) -> None:
    clone = SweepClone(tmp_path / "clone", stack, steps=2)
    refused = clone.erv("sweep", "run", "early", *OVER, check=False)
    assert refused.returncode == 1
    assert "first: not up to date" in error_of(refused)
    assert not (clone.folder / ".erv/sweeps/early/plan.json").exists()
    useless = clone.erv("sweep", "run", "useless", "--over", "grpo.beta=0.1:0.2", check=False)
    assert useless.returncode == 2
    assert not (clone.folder / ".erv/sweeps/useless").exists()
    assert "grpo.beta makes no difference to sft" in error_of(useless)
