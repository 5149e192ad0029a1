"""A work pool of Kubernetes on a real Prefect server, and the command of its pods as a process here."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError

import pytest
import yaml

from erv.environment import Environment, child_environment
from erv.remote.board import Board
from erv.stack.flow_runs import set_state
from erv.stack.prefect_api import ask as tell
from erv.stack.sweep_queue import QUEUE, SweepQueue
from erv.storage.store import open_store
from flows import attempt as attempts
from flows import slots
from flows.attempt import Attempt, Lost
from flows.slots import Slots
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


def test_trials_of_sweeps_have_all_slots_but_the_spare_ones(stack: Environment) -> None:
    pool = "swept-pods"
    assert register(stack, pool).returncode == 0
    body = {"name": "the-only-worker", "heartbeat_interval_seconds": 600}
    tell(stack, f"/work_pools/{pool}/workers/heartbeat", body)
    SweepQueue(stack, 1).keep(pool)
    assert ask(stack, f"/work_pools/{pool}/queues/{QUEUE}")["concurrency_limit"] == 3
    tell(stack, f"/work_pools/{pool}", {"concurrency_limit": None}, method="PATCH")
    SweepQueue(stack, 1).keep(pool)
    assert ask(stack, f"/work_pools/{pool}/queues/{QUEUE}")["concurrency_limit"] is None


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
def asked(
    stack: Environment, pool: str, request: pytest.FixtureRequest
) -> Iterator[Callable[[str], Attempt]]:
    """Makes attempts at a stage in a pool, whose runs a worker has taken; none has begun."""
    register(stack, "processes", template=None)
    taken: list[str] = []

    def ask_for(name: str) -> Attempt:
        board = Board(open_store(stack), stack.dvc_bucket, f"{request.node.name}-{name}")
        wanted = SimpleNamespace(stage="tune", bucket=stack.dvc_bucket)
        attempt = Attempt(stack, board, wanted, 1, "begun", name, 1, lambda line: None)  # type: ignore[arg-type]
        assert attempt.step() is None
        body = {
            "work_pools": {"name": {"any_": [name]}},
            "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
        }
        (run,) = ask(stack, "/flow_runs/filter", body)
        set_state(stack, run["id"], "PENDING", "submitted by the worker")
        taken.append(run["id"])
        return attempt

    yield ask_for
    for number in taken:
        set_state(stack, number, "CANCELLED", "it was a test", force=True)


def test_a_pod_may_wait_where_a_worker_may_not(
    stack: Environment, asked: Callable[[str], Attempt], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod that waited a minute for a GPU was given up, and so were the four after it."""
    monkeypatch.setattr(attempts, "CLAIM_SECONDS", 0.1)
    process, pod = asked("processes"), asked(POOL)
    assert process.step() is None
    assert pod.step() is None
    time.sleep(0.5)
    with pytest.raises(Lost, match="a worker took it and never began"):
        process.step()
    assert pod.step() is None
    # Once it runs, it has as long as everybody.
    assert pod._run is not None
    set_state(stack, pod._run.id, "RUNNING", "began")
    assert pod.step() is None
    time.sleep(0.5)
    with pytest.raises(Lost, match="a worker took it and never began"):
        pod.step()


def test_whoever_waits_for_a_slot_leaves_it_to_a_pod_that_waits(
    stack: Environment, asked: Callable[[str], Attempt], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "UNBORN_SECONDS", 0.1)
    monkeypatch.setattr(slots, "_LOOK_SECONDS", 0.0)
    runs = [asked(name)._run for name in ("processes", POOL)]
    watching = Slots(stack)
    freed: list[str] = []
    for _ in range(2):
        for name in ("processes", POOL):
            watching.free(name, freed.append)
        time.sleep(0.5)
    states = [ask(stack, f"/flow_runs/{run.id}")["state"]["type"] for run in runs if run is not None]
    assert states == ["CRASHED", "PENDING"]
    assert len(freed) == 1


class Cluster:
    """Stands for Prefect's Kubernetes worker and for Kubernetes: takes what waits, and starts pods."""

    def __init__(self, stack: Environment, folder: Path) -> None:
        self.stack = stack
        self.folder = folder
        self.log = folder / "log"
        # What /workspace of the image has: see the Dockerfile.
        for name in ("src", "flows"):
            shutil.copytree(
                ROOT / name, folder / "image" / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        variables = stack.variables()
        self.secret = {
            name: value for name, value in variables.items() if name.endswith(("_KEY", "_TOKEN", "_STRING"))
        }
        self.settings = {name: value for name, value in variables.items() if name not in self.secret}
        self.pods: list[subprocess.Popen[bytes]] = []

    def waiting(self) -> list[dict[str, Any]]:
        scheduled = {"state": {"type": {"any_": ["SCHEDULED"]}}}
        body = {"work_pools": {"name": {"any_": [POOL]}}, "flow_runs": scheduled}
        return ask(self.stack, "/flow_runs/filter", body)

    def take(self, run: dict[str, Any]) -> dict[str, Any]:
        """Makes the job of a run, starts its pod and returns the job."""
        set_state(self.stack, run["id"], "PENDING", "submitted by the worker")
        job = job_for(run["id"], POOL, self.stack)
        pod = job["spec"]["template"]["spec"]
        here = self.folder / f"pod{len(self.pods)}"
        folders = {item["name"]: here / item["name"] for item in pod["volumes"]}
        for folder in folders.values():
            folder.mkdir(parents=True)
        image = self.folder / "image"
        for container in pod["initContainers"]:
            done = start_container(container, image, folders, {}, {}, self.log)
            assert done.wait(60) == 0, self.log.read_text()
        (container,) = pod["containers"]
        given = (self.settings, self.secret, self.log)
        self.pods.append(start_container(container, image, folders, *given))
        return job

    def end(self) -> None:
        for pod in self.pods:
            if pod.poll() is None:
                os.killpg(pod.pid, signal.SIGKILL)
                pod.wait()


@pytest.fixture
def cluster(stack: Environment, pool: str, tmp_path: Path) -> Iterator[Cluster]:
    found = Cluster(stack, tmp_path)
    yield found
    found.end()


@pytest.fixture
def clone(stack: Environment, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """One that sends its training, in two processes, to the pool."""
    clone = Clone(tmp_path_factory.mktemp("clone"), stack)
    clone.place(f"{{grpo: {POOL}}}", processes="2")
    parameters = clone.folder / "params.yaml"
    parameters.write_text(parameters.read_text().replace("\n  accelerate: ", "\n  accelerate: ddp", 1))
    # Of the steps that run in several processes: the pipeline's `tune` by another name.
    for name, old, new in (
        ("dvc.yaml", "\n  tune:", "\n  grpo:"),
        ("work.py", 'ROOT / "tune"', 'ROOT / "grpo"'),
    ):
        path = clone.folder / name
        path.write_text(path.read_text().replace(old, new))
    clone.control("tune", "12 0.5")
    clone.commit()
    return clone


def test_an_evicted_pod_is_followed_by_another(stack: Environment, clone: Clone, cluster: Cluster) -> None:
    """The coordinator is `erv run` itself."""
    train = clone.start("run")
    try:
        wait_until(lambda: cluster.waiting() or train.process.poll() is not None, 120)
        (evicted,) = cluster.waiting()
        job = cluster.take(evicted)
        container = job["spec"]["template"]["spec"]["containers"][0]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == 2, "as many as machine.processes"

        train.wait_for("] INFO step 4", 120)
        cluster.pods[0].send_signal(signal.SIGTERM)  # as a kubelet does, to the first process alone
        assert cluster.pods[0].wait(60) != 0
        assert ask(stack, f"/flow_runs/{evicted['id']}")["state"]["type"] == "CRASHED"

        wait_until(lambda: cluster.waiting() or train.process.poll() is not None, 60)
        (followed,) = cluster.waiting()
        cluster.take(followed)
        assert train.process.wait(180) == 0, train.text() + cluster.log.read_text()
    finally:
        train.end()
    said = train.text()
    assert "3 stages: 3 ran" in said
    assert "goes on from a checkpoint of an earlier attempt, step " in said
    assert f"{cluster.folder}/pod1/home" in said, "it says where the stage ran"
    assert (clone.folder / "trained/weights.txt").read_text().startswith("12 steps")
    assert "up to date" in clone.dvc("status")
    assert cluster.pods[1].wait(60) == 0
    assert ask(stack, f"/flow_runs/{followed['id']}")["state"]["type"] == "COMPLETED"
