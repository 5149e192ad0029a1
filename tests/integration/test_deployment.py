"""The deployments, on a real server and through a real worker."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import psutil
import pytest
import yaml

from erv.environment import Environment, child_environment
from erv.stack.lost_runs import close_lost
from erv.stack.pools import pool_of
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
        named = {"flows": {"name": {"any_": ["train"]}}, "deployments": {"name": {"any_": ["local"]}}}
        (deployment,) = ask(stack, "/deployments/filter", named)
        assert deployment["tags"] == ["erv-model:emotion-policy", f"erv-deployed-by:{who(scratch.folder)}"]
        ran = {"deployments": {"id": {"any_": [deployment["id"]]}}}
        (run,) = ask(stack, "/flow_runs/filter", ran)
        assert set(run["tags"]) == set(deployment["tags"])
        scratch.control("join", "0 fail")
        result = scratch.python("-m", "prefect", "deployment", "run", "train/local", "--watch", check=False)
        assert result.returncode == 1
        assert "clip 7 of the scratch set is broken" in worker.text()
        before = (scratch.folder / "params.yaml").read_bytes()
        for parameter, said in {
            'overrides=["grpo.betta=0.1"]': "there is no parameter grpo.betta; did you mean grpo.beta?",
            'ref="nosuch"': f"git ref 'nosuch': {scratch.folder} has no such commit, branch or tag",
        }.items():
            wrong = ("deployment", "run", "train/local", "-p", parameter, "--watch")
            assert scratch.python("-m", "prefect", *wrong, check=False).returncode == 1
            assert said in worker.text()
        assert (scratch.folder / "params.yaml").read_bytes() == before
        assert "Traceback" not in worker.text()
    finally:
        worker.process.send_signal(signal.SIGINT)
        worker.process.wait(30)
        worker.end()


def test_the_next_worker_closes_the_run_of_one_that_was_killed(
    stack: Environment, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It stayed running and kept the deployment's only slot, so the next run waited for minutes."""
    scratch = Scratch(tmp_path_factory.mktemp("killed"), stack)
    shutil.copy(ROOT / "prefect.yaml", scratch.folder)
    scratch.erv("run", "--deploy", "--replace")
    scratch.control("make", "600")
    worker = scratch.start("run", "--worker")
    deployment = ask(stack, "/deployments/name/train/local")
    run = ask(stack, f"/deployments/{deployment['id']}/create_flow_run", {})["id"]
    try:
        worker.wait_for("begins", 120)
        for process in [worker.process, *psutil.Process(worker.process.pid).children(recursive=True)]:
            process.kill()
        worker.process.wait(30)
    finally:
        worker.end()
    assert ask(stack, f"/flow_runs/{run}")["state_type"] == "RUNNING", "nobody has told Prefect"
    following = scratch.start("run", "--worker")
    try:
        following.wait_for("started!", 120)
        assert f"warning: the previous flow run was killed: {run}" in following.text()
        found = ask(stack, f"/flow_runs/{run}")["state"]
        assert (found["type"], found["message"]) == ("CRASHED", "its process was killed")
        assert not (scratch.folder / ".erv/flow_run").exists()
    finally:
        following.process.send_signal(signal.SIGINT)
        following.process.wait(30)
        following.end()


def test_the_next_worker_closes_a_run_that_was_taken_and_never_began(
    stack: Environment, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It stayed pending and kept the deployment's only slot, so that later runs waited for ever."""
    scratch = Scratch(tmp_path_factory.mktemp("taken"), stack)
    shutil.copy(ROOT / "prefect.yaml", scratch.folder)
    scratch.erv("run", "--deploy", "--replace")
    deployment = ask(stack, "/deployments/name/train/local")
    new = f"/deployments/{deployment['id']}/create_flow_run"
    taken, waits = (ask(stack, new, {})["id"] for _ in range(2))
    pending = {"state": {"type": "PENDING", "name": "Submitting"}, "force": False}  # as a worker does
    assert ask(stack, f"/flow_runs/{taken}/set_state", pending)["status"] == "ACCEPT"
    worker = scratch.start("run", "--worker")
    try:
        worker.wait_for("started!", 120)
        assert f"warning: flow run {taken} is marked as crashed: its worker was killed" in worker.text()
        found = ask(stack, f"/flow_runs/{taken}")["state"]
        assert (found["type"], found["message"]) == ("CRASHED", "its worker was killed before it began")
        worker.wait_for("4 stages: 4 ran", 120)
        until = time.monotonic() + 60
        while (state := ask(stack, f"/flow_runs/{waits}")["state_type"]) != "COMPLETED":
            assert time.monotonic() < until, state
            time.sleep(0.5)
        # What a living worker has taken is left to it.
        ask(stack, f"/flow_runs/{ask(stack, new, {})['id']}/set_state", pending)
        assert close_lost(stack, pool_of(scratch.folder)) == []
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
        names = ("train/local", "train/distributed", "promote/local")
        found = {name: ask(stack, f"/deployments/name/{name}") for name in names}
        same = ("entrypoint", "tags", "description", "work_pool_name", "pull_steps", "parameters")
        return {name: {key: item[key] for key in same} for name, item in found.items()}

    plain = deployed()
    assert plain["train/local"]["parameters"] == {"workers": 2}, "as prefect.yaml says"
    chosen = deployed("--workers", "7")
    assert chosen["train/local"].pop("parameters") == {"workers": 7}
    plain["train/local"].pop("parameters")
    assert chosen["train/distributed"].pop("parameters")["workers"] == 7
    assert plain["train/distributed"].pop("parameters")["placement"][-1] == "grpo=gpu", "which stays"
    assert chosen == plain, "and nothing else is different"
    assert (
        "goes with a run or with --deploy"
        in scratch.erv("run", "--worker", "--workers", "7", check=False).stderr
    )


NAMES = tuple(
    f"{Path(one['entrypoint'].partition(':')[0]).stem}/{one['name']}"
    for one in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
)


def has_a_field(shown: dict[str, Any]) -> bool:
    """Whether the form shows a field for a parameter at once.

    Prefect's page picks the kind of value that the default has, and has no field for the kind of none. A
    parameter that must be given has one kind alone.
    """
    kinds = {one.get("type") for one in shown.get("anyOf", [])}
    return not kinds or (kinds == {"integer", "string"} and isinstance(shown.get("default"), str))


# What the server refuses before there is a run, by deployment.
WRONG: dict[str, tuple[dict[str, Any], ...]] = {
    "evaluate/any": ({"model": ""}, {"model": 0}, {"model": None}),
    "promote/model": ({"version": ""}, {"version": 1.5}, {"hours": 0}, {"hours": 10_000}),
    "retrain/scheduled": ({"sources": ["maffw"]}, {"sources": "mafw"}, {"workers": 0}),
    "sweep/local": ({}, {"name": "a b"}, {"name": "a", "over": ["beta"]}, {"name": "a", "metric": "f1"}),
}


def test_forms_explain_themselves_and_refuse_what_does_not_fit(
    stack: Environment, tmp_path_factory: pytest.TempPathFactory
) -> None:
    scratch = Scratch(tmp_path_factory.mktemp("form"), stack)
    shutil.copy(ROOT / "prefect.yaml", scratch.folder)
    said = scratch.erv("run", "--deploy", "--replace").stdout
    assert f"{', '.join(NAMES[:-1])} and {NAMES[-1]}" in said
    found = {name: ask(stack, f"/deployments/name/{name}") for name in NAMES}
    for name, deployment in found.items():
        assert deployment["enforce_parameter_schema"]
        for parameter, shown in deployment["parameter_openapi_schema"]["properties"].items():
            assert shown.get("description"), (name, parameter)
            assert has_a_field(shown), (name, parameter, shown)
    assert found["promote/local"]["entrypoint"] == found["promote/model"]["entrypoint"]

    shown = found["train/local"]["parameter_openapi_schema"]["properties"]
    order = ["profile", "targets", "overrides", "force", "ref", "workers", "only", "placement"]
    assert list(shown) == order
    assert found["train/distributed"]["parameters"] == {
        "workers": 2,
        "placement": ["sft=gpu", "train_erv=gpu", "grpo=gpu"],
    }
    stages = ["make", "join", "last", "make@a", "make@b"]
    assert sorted(shown["targets"]["items"]["enum"]) == sorted(stages)
    assert shown["profile"]["enum"] == ["", "demo", "paper-0.5b", "paper-7b", "tiny"]
    of_new_data = found["retrain/scheduled"]["parameter_openapi_schema"]["properties"]
    assert "mafw" in of_new_data["sources"]["items"]["enum"]
    assert "" not in of_new_data["sources"]["items"]["enum"]
    for name, parameters in WRONG.items():
        for wrong in parameters:
            with pytest.raises(HTTPError) as refused:
                ask(stack, f"/deployments/{found[name]['id']}/create_flow_run", {"parameters": wrong})
            assert refused.value.code in (409, 422), (name, wrong)

    ran = {"deployments": {"id": {"any_": [found["train/local"]["id"]]}}}
    before = ask(stack, "/flow_runs/filter", ran)  # of other tests
    scratch.variables = lambda: child_environment(scratch.environment)  # type: ignore[method-assign]
    for wrong in (
        'only="reprot"',
        'targets=["reprot"]',
        'profile="tinny"',
        "workers=99",
        'overrides=["beta"]',
        'placement=["grpo"]',
        'placement=["make=no pool"]',
        'placement=["nope=gpu"]',
        'only="make"',  # two stages
    ):
        ended = scratch.python("-m", "prefect", "deployment", "run", "train/local", "-p", wrong, check=False)
        assert ended.returncode == 1
        said = " ".join((ended.stdout + ended.stderr).split())
        assert f"Validation failed for field '{wrong.partition('=')[0]}" in said
    assert ask(stack, "/flow_runs/filter", ran) == before


def test_the_schedule_for_new_data_is_off_and_stays_as_people_set_it(
    stack: Environment, tmp_path_factory: pytest.TempPathFactory
) -> None:
    scratch = Scratch(tmp_path_factory.mktemp("schedule"), stack)
    shutil.copy(ROOT / "prefect.yaml", scratch.folder)

    def deployed() -> list[tuple[str, bool]]:
        scratch.erv("run", "--deploy", "--replace")
        schedules = ask(stack, "/deployments/name/retrain/scheduled")["schedules"]
        return [(item["schedule"]["cron"], item["active"]) for item in schedules]

    assert deployed() == [("0 3 * * *", False)]
    number = ask(stack, "/deployments/name/retrain/scheduled")["id"]
    prefect = lambda *words: scratch.python("-m", "prefect", "deployment", "schedule", *words)  # noqa: E731
    scratch.variables = lambda: child_environment(scratch.environment)  # type: ignore[method-assign]
    prefect("clear", "--accept-yes", "retrain/scheduled")
    other = [{"schedule": {"cron": "30 4 * * 1"}, "active": True}]
    ask(stack, f"/deployments/{number}/schedules", other)
    del scratch.variables
    assert deployed() == [("30 4 * * 1", True)]
    scratch.variables = lambda: child_environment(scratch.environment)  # type: ignore[method-assign]
    prefect("clear", "--accept-yes", "retrain/scheduled")  # no later test is to start at night


def test_new_data_is_pinned_and_trained_on_once(
    stack: Environment, tmp_path_factory: pytest.TempPathFactory
) -> None:
    scratch = Scratch(tmp_path_factory.mktemp("retrain"), stack)
    shutil.copy(ROOT / "prefect.yaml", scratch.folder)
    raw = scratch.folder.parent / f"{scratch.folder.name}-raw"
    raw.mkdir()
    (raw / "a.mp4").write_text("a")
    params, lock = scratch.folder / "params.yaml", scratch.folder / "data/sources/mafw.lock.json"
    params.write_text(params.read_text().replace("mafw: s3://erv-raw/mafw", f"mafw: {raw}"))
    pipeline = scratch.folder / "dvc.yaml"
    pipeline.write_text(
        pipeline.read_text().replace("control/make.txt]", "control/make.txt, data/sources/mafw.lock.json]")
    )
    scratch.erv("data", "pin", "mafw")
    scratch.erv("run")
    scratch.erv("run", "--deploy", "--replace")
    worker = scratch.start("run", "--worker")

    def retrain(code: int) -> str:
        before = len(worker.text())
        command = ("-m", "prefect", "deployment", "run", "retrain/scheduled", "--watch")
        result = scratch.python(*command, check=False)
        assert result.returncode == code, result.stdout + worker.text()
        return worker.text()[before:]

    try:
        worker.wait_for("started!")
        scratch.variables = lambda: child_environment(scratch.environment)  # type: ignore[method-assign]
        assert "no source has new data; nothing was run" in retrain(0)
        assert len(scratch.runs()["train"]) == 1

        (raw / "b.mp4").write_text("b")
        pinned = lock.read_bytes()
        scratch.control("join", "0 fail")
        said = retrain(1)
        assert "pinned again: mafw: 1 file added (b.mp4); commit" in said
        assert "clip 7 of the scratch set is broken" in said
        assert lock.read_bytes() != pinned
        scratch.control("join", "0")
        said = retrain(0)
        assert "no run has finished with what was pinned earlier: mafw: 1 file added (b.mp4)" in said
        latest, failed, _ = scratch.runs()["train"]
        assert (latest.info.status, failed.info.status) == ("FINISHED", "FAILED")
        for run in (latest, failed):
            assert run.data.tags["erv.new_data"] == "mafw: 1 file added (b.mp4)"

        assert "no source has new data; nothing was run" in retrain(0)
        shutil.rmtree(raw)
        pinned = lock.read_bytes()
        assert "source mafw: " in retrain(1)
        assert lock.read_bytes() == pinned
        assert "Traceback" not in worker.text()
    finally:
        worker.process.send_signal(signal.SIGINT)
        worker.process.wait(30)
        worker.end()
