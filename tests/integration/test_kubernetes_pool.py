"""A work pool of Kubernetes on a real Prefect server, and the command of its pods as a process here."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
import yaml

from erv.environment import Environment, child_environment
from erv.stack.flow_runs import set_state
from tests.conftest import ROOT
from tests.distributed.topology import Clone
from tests.integration.prefect_api import ask
from tests.integration.scratch import Scratch, wait_until
from tests.support.pods import job_for, start_container

pytestmark = pytest.mark.integration

TEMPLATE = ROOT / "infra/kubernetes/stack/job-template.yaml"
POOL = "pods"


def register(
    stack: Environment, *words: str, template: Path | None = TEMPLATE
) -> subprocess.CompletedProcess:
    """`python -m flows.shared_pools`, as `erv run --worker --pool` calls it."""
    given = [] if template is None else [f"--job-template={template}"]
    return subprocess.run(
        [sys.executable, "-m", "flows.shared_pools", *words, *given],
        cwd=ROOT,
        env=child_environment(stack),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def pool(stack: Environment) -> str:
    done = register(stack, POOL)
    assert done.returncode == 0, done.stderr
    return POOL


def ask_for_run(stack: Environment, **job_variables: Any) -> dict[str, Any]:
    number = ask(stack, f"/deployments/name/run-stage/{POOL}")["id"]
    parameters = {"stage": "tune", "key": "0" * 64, "attempt": 1, "bucket": "none", "pool": POOL}
    body = {"parameters": parameters, "job_variables": job_variables}
    return ask(stack, f"/deployments/{number}/create_flow_run", body)


def test_the_pool_has_the_template_and_the_deployment(stack: Environment, pool: str) -> None:
    found = ask(stack, f"/work_pools/{pool}")
    assert (found["type"], found["concurrency_limit"]) == ("kubernetes", 4)
    assert found["base_job_template"] == yaml.safe_load(TEMPLATE.read_text())
    deployment = ask(stack, f"/deployments/name/run-stage/{pool}")
    assert deployment["work_pool_name"] == pool
    assert deployment["entrypoint"] == "flows.run_stage.run_stage"


def test_job_variables_are_checked_by_the_server(stack: Environment, pool: str) -> None:
    run = ask_for_run(stack, gpus=2, memory="128Gi", env={"ERV_OTHER_LIBRARIES": "accept"})
    assert run["job_variables"]["gpus"] == 2
    set_state(stack, run["id"], "CANCELLED", "it was a test", force=True)
    for wrong in ({"gpus": "many"}, {"gpus": -1}, {"memory": "much"}, {"env": {"A": 1}}, {"gpu": 2}):
        with pytest.raises(HTTPError) as refused:
            pytest.fail(f"{wrong}: {ask_for_run(stack, **wrong)}")
        assert refused.value.code == 422, wrong


def test_a_new_template_reaches_the_pool_and_its_limit_stays(
    stack: Environment, pool: str, tmp_path: Path
) -> None:
    changed = yaml.safe_load(TEMPLATE.read_text())
    changed["variables"]["properties"]["gpus"]["default"] = 2
    (tmp_path / "template.yaml").write_text(yaml.safe_dump(changed))
    assert register(stack, POOL, template=tmp_path / "template.yaml").stdout == f"{POOL}: 4\n"
    assert ask(stack, f"/work_pools/{pool}")["base_job_template"] == changed


def test_a_worker_of_the_other_kind_is_refused(stack: Environment, pool: str) -> None:
    refused = register(stack, pool, template=None)
    assert refused.returncode == 1
    assert refused.stderr == (
        "error: work pool 'pods' is of type kubernetes, but a worker without --job-template serves one of"
        " type process; name another pool with --pool, or end the workers of this one and"
        " `prefect work-pool delete pods`\n"
    )
    assert register(stack, "processes", template=None).returncode == 0
    assert "is of type process, but a worker with --job-template" in register(stack, "processes").stderr


def test_without_prefects_kubernetes_worker_it_says_where_that_is(
    stack: Environment, tmp_path_factory: pytest.TempPathFactory
) -> None:
    scratch = Scratch(tmp_path_factory.mktemp("server"), stack)
    said = scratch.erv("run", "--worker", "--pool", POOL, "--job-template", str(TEMPLATE), check=False)
    assert said.returncode == 1
    assert "--job-template needs Prefect's Kubernetes worker, which isn't installed here" in said.stderr
    (scratch.folder / "wrong.yaml").write_text("variables: {}\n")
    said = scratch.erv("run", "--worker", "--pool", POOL, "--job-template", "wrong.yaml", check=False)
    assert "wrong.yaml: a job template has the two parts `variables` and" in said.stderr


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """What /workspace of the image has: see the Dockerfile."""
    folder = tmp_path / "image"
    for name in ("src", "flows"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def ended() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def test_a_pod_runs_a_placed_stage(
    stack: Environment,
    pool: str,
    image: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    ended: list[subprocess.Popen[bytes]],
) -> None:
    """The coordinator is `erv run` itself; this test stands for Prefect's worker and for Kubernetes."""
    clone = Clone(tmp_path_factory.mktemp("clone"), stack)
    clone.place(f"{{grpo: {pool}}}", processes="2")
    parameters = clone.folder / "params.yaml"
    parameters.write_text(parameters.read_text().replace("\n  accelerate: ", "\n  accelerate: ddp", 1))
    # Of the steps that run in several processes: the pipeline's `tune` by another name.
    pipeline = clone.folder / "dvc.yaml"
    pipeline.write_text(pipeline.read_text().replace("\n  tune:", "\n  grpo:"))
    clone.commit()
    train = clone.start("run")
    ended.append(train.process)
    waiting = {
        "work_pools": {"name": {"any_": [pool]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
    }
    wait_until(lambda: ask(stack, "/flow_runs/filter", waiting) or train.process.poll() is not None, 120)
    (run,) = ask(stack, "/flow_runs/filter", waiting)
    set_state(stack, run["id"], "PENDING", "submitted by the worker")

    for name, value in child_environment(stack).items():
        if name.startswith("PREFECT_"):
            monkeypatch.setenv(name, value)
    job = job_for(run["id"], run["job_variables"], pool)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    folders = {item["name"]: tmp_path / "volumes" / item["name"] for item in pod["volumes"]}
    for folder in folders.values():
        folder.mkdir(parents=True)
    variables = stack.variables()
    secret = {name: variables[name] for name in variables if name.endswith(("_KEY", "_TOKEN", "_STRING"))}
    settings = {name: value for name, value in variables.items() if name not in secret}
    log = tmp_path / "log"
    (first,) = pod["initContainers"]
    assert start_container(first, image, folders, {}, {}, log).wait(60) == 0
    process = start_container(container, image, folders, settings, secret, log)
    ended.append(process)
    assert process.wait(180) == 0, log.read_text()
    assert train.process.wait(120) == 0, train.text() + log.read_text()
    assert "3 stages: 3 ran" in train.text()
    assert f"{folders['home']}" in train.text(), "it says where the stage ran"
    assert (clone.folder / "trained/weights.txt").read_text().startswith("3 steps")
    assert "up to date" in clone.dvc("status")
    assert ask(stack, f"/flow_runs/{run['id']}")["state"]["type"] == "COMPLETED"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 2, "as many as machine.processes"
