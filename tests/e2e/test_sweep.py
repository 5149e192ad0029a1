"""A sweep over grpo in the tiny workspace: measured on validation clips, the best registered."""

from __future__ import annotations

import re

import pytest

from erv.environment import load_environment
from erv.tracking.lock_entries import client_of
from tests.e2e.workspace import Workspace

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(2400)]


def test_trials_of_grpo_are_measured_and_the_best_is_registered(trained: Workspace) -> None:
    trained.run("git", "add", "-A")
    trained.run("git", "commit", "-q", "--allow-empty", "-m", "trained")
    over = ("--over", "grpo.learning_rate=1e-4:1e-2:log")
    done = trained.run("erv", "sweep", "run", "rates", *over, "--trials", "2", "--metric", "reward")
    proposed = re.search(r"proposed as (\S+) version (\d+)", done.stdout)
    assert proposed, done.stdout
    client = client_of(load_environment(trained.path, trained.environment))
    version = client.get_model_version(proposed[1], proposed[2])
    assert version.tags["erv.sweep"] == "rates"
    best = version.tags["erv.sweep_trial"]
    experiment = client.get_experiment_by_name("erv").experiment_id
    found = client.search_runs([experiment], "tags.`erv.kind` = 'trial'")
    trials = {run.data.tags["erv.sweep_trial"]: run for run in found}
    assert {run.data.tags["erv.sweep_state"] for run in trials.values()} == {"COMPLETE"}
    values = {number: run.data.metrics["sweep/value"] for number, run in trials.items()}
    assert values[best] == max(values.values())
    series = client.get_metric_history(trials[best].info.run_id, "validation/reward")
    assert series[-1].value == pytest.approx(values[best])
    assert trained.run("git", "status", "--porcelain").stdout == "", "the clone is as it was"

    # The same with the command that it told: DVC has it, nothing is trained, whoever measures or not.
    (command,) = re.findall(r"to have it here: erv (.*)", done.stdout)
    again = trained.run("erv", *command.split())
    assert re.search(r"grpo@erv +restored", again.stdout), again.stdout
    trained.run("git", "checkout", "-q", "params.yaml", "dvc.lock")
    trained.run("dvc", "checkout", "-q")
