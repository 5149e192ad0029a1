"""Two clones on one Prefect server: a deployment belongs to one of them until another takes it over."""

from __future__ import annotations

import platform
import re
import shutil
import signal
import subprocess
from typing import Any

import pytest

from erv.environment import Environment
from erv.stack.deployments import Place, worker_is_online
from erv.stack.launch import POOL
from erv.tracking.origin import who
from tests.conftest import ROOT
from tests.integration.prefect_api import ask
from tests.integration.scratch import Scratch, wait_until

pytestmark = pytest.mark.integration


def clone(folder: Any, stack: Environment) -> Scratch:
    scratch = Scratch(folder, stack)
    shutil.copytree(ROOT / "flows", scratch.folder / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "prefect.yaml", scratch.folder)
    return scratch


def folders(stack: Environment) -> set[str]:
    found = [ask(stack, f"/deployments/name/{name}") for name in ("train/local", "promote/local")]
    return {step["directory"] for one in found for step in one["pull_steps"][0].values()}


@pytest.mark.slow
def test_a_deployment_changes_hands_only_if_told_to(
    stack: Environment, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ann, bea = (clone(tmp_path_factory.mktemp(name), stack) for name in ("ann", "bea"))
    subprocess.run(["git", "config", "user.name", "Ann O'Lee"], cwd=ann.folder, check=True)
    ann.erv("run", "--deploy", "--replace")  # another test may have deployed
    wait_until(lambda: not worker_is_online(stack, POOL), 120)  # or may just have stopped its worker
    said = ann.erv("run", "--deploy").stdout  # the same clone asks nothing
    first, start, worker, told = said.splitlines()
    assert first == f"deployed train/local and promote/local; their runs work in {ann.folder}"
    assert start.startswith("start a run: prefect deployment run train/local --watch  # ")
    assert start.endswith('eval "$(erv stack env)"'), "else it asks another server"
    assert worker.endswith("start it in another shell: erv run --worker")
    assert told.startswith("ERV_NOTIFY_URL is not set")

    refused = bea.erv("run", "--deploy", check=False)
    assert refused.returncode == 1
    place = f"{ann.folder} on {platform.node()}, deployed by {who(ann.folder)}"
    assert "Ann O'Lee (" in place
    (sentence,) = refused.stderr.splitlines()
    assert sentence.startswith(
        f"error: train/local and promote/local on this Prefect server run in {place}; nothing was deployed:"
    )
    assert "`erv run --deploy --replace`" in sentence
    assert folders(stack) == {str(ann.folder)}

    served = bea.start("run", "--worker")
    try:
        served.wait_for("started!")
        assert f"run in {place}; a worker here takes their runs too" in served.text()
        # Now that a worker runs, nobody is told to start one.
        first, start, told = bea.erv("run", "--deploy", "--replace").stdout.splitlines()
        assert first.endswith(f"their runs work in {bea.folder}")
        served.process.send_signal(signal.SIGINT)
        served.process.wait(60)
    finally:
        served.end()
    assert folders(stack) == {str(bea.folder)}
    assert re.search(
        f"run in {re.escape(str(bea.folder))} on", ann.erv("run", "--deploy", check=False).stderr
    )


def test_a_place_is_this_clone_by_folder_and_machine(stack: Environment) -> None:
    here = str(stack.workspace)
    assert Place(here, who(stack.workspace)).is_of(stack)
    assert Place(here, f"Ann Lee (ann@{platform.node()})").is_of(stack), "with git's name of hers"
    assert not Place(here, "Ann Lee (ann@another-machine)").is_of(stack)
    assert Place(here, f"somebody-else@{platform.node()}").is_of(stack), "two people, one clone"
    assert Place(here, None).is_of(stack), "deployed before machines were recorded"
    assert not Place(here, "ann@another-machine").is_of(stack), "home folders look alike"
    assert not Place(f"{here}-2", who(stack.workspace)).is_of(stack)
    assert not Place(None, None).is_of(stack), "something else has the name"
