"""The deployment train/local through a real worker."""

from __future__ import annotations

import shutil
import signal
from typing import Any

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
        wrong = ("deployment", "run", "train/local", "-p", 'only="reprot"', "--watch")
        assert scratch.python("-m", "prefect", *wrong, check=False).returncode == 1
        assert "no stage 'reprot' in dvc.yaml" in worker.text()
        assert "Traceback" not in worker.text()
    finally:
        worker.process.send_signal(signal.SIGINT)
        worker.process.wait(30)
        worker.end()


def test_the_deployment_has_the_workers_that_are_asked_for(
    stack: Environment, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """They were accepted and ignored: `prefect deploy --all` takes no parameters."""
    scratch = Scratch(tmp_path_factory.mktemp("workers"), stack)
    shutil.copy(ROOT / "prefect.yaml", scratch.folder)

    def deployed(*words: str) -> dict[str, dict[str, Any]]:
        scratch.erv("run", "--deploy", "--replace", *words)
        found = {name: ask(stack, f"/deployments/name/{name}") for name in ("train/local", "promote/local")}
        same = ("entrypoint", "tags", "description", "work_pool_name", "pull_steps", "parameters")
        return {name: {key: item[key] for key in same} for name, item in found.items()}

    plain = deployed()
    assert plain["train/local"]["parameters"] == {"workers": 2}, "as prefect.yaml says"
    chosen = deployed("--workers", "7")
    assert chosen["train/local"].pop("parameters") == {"workers": 7}
    plain["train/local"].pop("parameters")
    assert chosen == plain, "and nothing else is different"
    assert (
        "goes with a run or with --deploy"
        in scratch.erv("run", "--worker", "--workers", "7", check=False).stderr
    )
