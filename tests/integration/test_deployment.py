"""The deployment train/local through a real worker."""

from __future__ import annotations

import shutil
import signal

import pytest

from erv.environment import Environment, child_environment
from erv.tracking.origin import who
from tests.conftest import ROOT
from tests.integration.prefect_api import ask
from tests.integration.scratch import Scratch

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_a_deployed_flow_runs_through_a_worker(
    stack: Environment, tmp_path_factory: pytest.TempPathFactory
) -> None:
    scratch = Scratch(tmp_path_factory.mktemp("deployment"), stack)
    shutil.copy(ROOT / "prefect.yaml", scratch.folder)
    assert f"their runs work in {scratch.folder}" in scratch.erv("run", "--deploy", "--replace").stdout
    worker = scratch.start("run", "--worker")
    try:
        worker.wait_for("started!")
        scratch.variables = lambda: child_environment(scratch.environment)  # type: ignore[method-assign]
        result = scratch.python("-m", "prefect", "deployment", "run", "train/local", "--watch", check=False)
        assert result.returncode == 0, result.stdout + worker.text()
        assert "4 stages: 4 ran" in worker.text()
        # By this tag, the automations of `flows.notices` know whose failure it is.
        (deployment,) = ask(stack, "/deployments/filter", {"flows": {"name": {"any_": ["train"]}}})
        assert deployment["tags"] == ["erv-model:emotion-policy", f"erv-deployed-by:{who(scratch.folder)}"]
        ran = {"deployments": {"id": {"any_": [deployment["id"]]}}}
        (run,) = ask(stack, "/flow_runs/filter", ran)
        assert set(run["tags"]) == set(deployment["tags"])
        scratch.control("join", "0 fail")
        result = scratch.python("-m", "prefect", "deployment", "run", "train/local", "--watch", check=False)
        assert result.returncode == 1
        assert "clip 7 of the scratch set is broken" in worker.text()
    finally:
        worker.process.send_signal(signal.SIGINT)
        worker.process.wait(30)
        worker.end()
