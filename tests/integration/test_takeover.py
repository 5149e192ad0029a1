"""Two clones on one Prefect server: who has the deployments, and whose worker runs what."""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from erv.doctor.doctor import examine
from erv.environment import Environment, child_environment
from erv.stack.deployments import Place, declared, listed
from erv.stack.pools import FORMER, pool_of
from erv.tracking.origin import who
from tests.conftest import ROOT
from tests.integration.prefect_api import ask
from tests.integration.scratch import WORK, Background, Scratch, wait_until

pytestmark = pytest.mark.integration

# Each stage says which code ran it, and with which Python.
TELLING = WORK.replace('f"{name} ', '__import__("erv").__file__ + f" {sys.executable}\\n" + f"{name} ')


class Clone(Scratch):
    """A clone with code of its own, and an environment that is installed from it."""

    def __init__(self, folder: Path, stack: Environment) -> None:
        super().__init__(folder, stack)
        for name in ("src", "flows"):
            (folder / name).unlink()
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "prefect.yaml", folder)
        (folder / "work.py").write_text(TELLING)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / ".venv"], check=True)
        libraries = sysconfig.get_path("purelib")
        editable = folder / ".venv/lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
        (editable / "site-packages/erv.pth").write_text(
            f"{folder / 'src'}\nimport site; site.addsitedir({libraries!r})\n"
        )
        self.executable = str(folder / ".venv/bin/python")
        self.pool = pool_of(folder)

    def variables(self) -> dict[str, str]:
        path = os.pathsep.join([str(Path(self.executable).parent), os.environ["PATH"]])
        plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return {**plain, "PATH": path, "OMP_NUM_THREADS": "1", "PREFECT_WORKER_QUERY_SECONDS": "1"}

    @contextmanager
    def worker(self) -> Iterator[Background]:
        """`erv run --worker`, until the block ends."""
        worker = self.start("run", "--worker")
        try:
            worker.wait_for("started!")
            yield worker
            worker.process.send_signal(signal.SIGINT)
            worker.process.wait(60)
        finally:
            worker.end()

    def ran(self) -> list[str]:
        """The code and the Python of the last stage's last run here; nothing if there was none."""
        path = self.folder / "last.txt"
        return path.read_text().splitlines()[0].split() if path.is_file() else []

    @property
    def own(self) -> list[str]:
        return [str(self.folder / "src/erv/__init__.py"), self.executable]


def start_run(stack: Environment, **more: Any) -> str:
    deployment = ask(stack, "/deployments/name/train/local")
    return str(ask(stack, f"/deployments/{deployment['id']}/create_flow_run", more)["id"])


def state_of(stack: Environment, run: str) -> dict[str, Any]:
    state: dict[str, Any] = ask(stack, f"/flow_runs/{run}")["state"]
    return state


def wait_for(stack: Environment, run: str, *types: str) -> dict[str, Any]:
    wait_until(lambda: state_of(stack, run)["type"] in types, seconds=180)
    return state_of(stack, run)


def prefects(stack: Environment) -> dict[str, str]:
    """What Prefect's own programs need to find the server."""
    return {name: value for name, value in child_environment(stack).items() if name.startswith("PREFECT_")}


def prefect(stack: Environment, clone: Clone, *words: str) -> None:
    """A command of Prefect's own."""
    command = [clone.executable, "-m", "prefect", *words]
    subprocess.run(command, env={**clone.variables(), **prefects(stack)}, check=True, capture_output=True)


def served_by_hand(stack: Environment, clone: Clone, pool: str, run: str) -> dict[str, Any]:
    """How a run ends that Prefect's own worker takes, with the environment of a clone."""
    worker = subprocess.Popen(
        [clone.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--run-once"],
        env={**clone.variables(), **prefects(stack)},
        cwd=clone.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        return wait_for(stack, run, "COMPLETED", "FAILED", "CRASHED")
    finally:
        worker.terminate()
        worker.wait(60)


def said_of(stack: Environment, events: dict[str, Any], before: str) -> list[str]:
    """What the events say that concern deployments of a folder."""
    found = ask(stack, "/events/filter", {"filter": events})["events"]
    return [one["payload"]["text"] for one in found if one["payload"]["before"]["folder"] == before]


def healthy(stack: Environment, clone: Clone) -> bool:
    """What the health check of a worker's container says."""
    result = subprocess.run(
        [clone.executable, ROOT / "infra/compose/worker_health.py"],
        env={**clone.variables(), **stack.variables()},
        cwd=clone.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in result.stderr, result.stderr
    return result.returncode == 0


ALL = listed(declared(ROOT))
LATER = {
    "state": {
        "type": "SCHEDULED",
        "state_details": {"scheduled_time": (datetime.now(UTC) + timedelta(hours=3)).isoformat()},
    }
}


@pytest.fixture
def clones(stack: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Clone, Clone]]:
    ann, bea = (Clone(tmp_path_factory.mktemp(name), stack) for name in ("ann", "bea"))
    subprocess.run(["git", "config", "user.name", "Ann O'Lee"], cwd=ann.folder, check=True)
    yield ann, bea
    bea.erv("run", "--deploy", "--replace", "--cancel-waiting")  # nothing is left for other tests


@pytest.mark.slow
def test_each_worker_runs_what_was_made_for_its_clone(
    stack: Environment, clones: tuple[Clone, Clone]
) -> None:
    """Both on one machine, both online; a run is never one clone's code in another's folder."""
    ann, bea = clones
    ann.erv("run", "--deploy", "--replace", "--cancel-waiting")  # another test may have deployed
    first, start, worker, told = ann.erv("run", "--deploy").stdout.splitlines()  # the same clone asks nothing
    assert first == f"deployed {ALL}; their runs work in {ann.folder}"
    assert start.startswith("start a run: prefect deployment run train/local --watch  # ")
    assert start.endswith('eval "$(erv stack env)"'), "else it asks another server"
    assert worker.startswith(f"no worker of this clone is running (work pool {ann.pool})")
    assert worker.endswith(": erv run --worker")
    assert told.startswith("ERV_NOTIFY_URL is not set")

    refused = bea.erv("run", "--deploy", check=False)
    assert refused.returncode == 1
    place = f"{ann.folder} on {platform.node()}, deployed by {who(ann.folder)}"
    assert "Ann O'Lee (" in place
    (sentence,) = refused.stderr.splitlines()
    assert sentence.startswith(f"error: {ALL} on this Prefect server run in {place}; nothing was deployed:")
    assert "`erv run --deploy --replace`" in sentence

    ann.control("make", "60")  # as long as all of the takeover, on a slow machine
    deployment = ask(stack, "/deployments/name/train/local")["id"]
    ask(stack, f"/deployments/{deployment}/schedules", [{"schedule": {"cron": "0 3 1 1 *"}, "active": True}])
    with ann.worker():
        running = start_run(stack)
        wait_for(stack, running, "RUNNING")
        waiting, later = start_run(stack), start_run(stack, **LATER)
        # Only Ann's worker is online, which is no reason not to tell Bea to start hers.
        said = bea.erv("run", "--deploy", "--replace").stdout.splitlines()
        assert said[:5] == [
            f"taken over: {ALL} from {place}; a worker there gets no new runs of them",
            "schedules of train/local start runs here from now on; Prefect's page pauses and deletes them",
            f"1 run has begun in work pool {ann.pool!r}: what has begun ends there;"
            " until then, new runs of train/local wait",
            f"2 runs wait in work pool {ann.pool!r}: they stay, and run in {ann.folder},"
            " whose worker is online",
            "to cancel the waiting ones: erv run --deploy --cancel-waiting",
        ]
        taken = {"event": {"name": ["erv.takeover"]}, "resource": {"id": ["erv.deployments.emotion-policy"]}}
        wait_until(lambda: said_of(stack, taken, str(ann.folder)))
        (text,) = said_of(stack, taken, str(ann.folder))
        assert text.startswith(
            f"{who(bea.folder)} has taken over {ALL} from {place}: new runs work in {bea.folder} on "
        )
        kept = ask(stack, "/deployments/name/train/local")["schedules"]
        assert [(one["schedule"]["cron"], one["active"]) for one in kept] == [("0 3 1 1 *", True)]
        prefect(stack, bea, "deployment", "schedule", "clear", "--accept-yes", "train/local")
        assert healthy(stack, ann)
        assert not healthy(stack, bea)
        assert said[7].startswith(f"no worker of this clone is running (work pool {bea.pool})")
        with bea.worker():
            assert not any("no worker" in line for line in bea.erv("run", "--deploy").stdout.splitlines())
            assert healthy(stack, bea)
            new = start_run(stack)
            for run in (running, waiting, new):
                assert wait_for(stack, run, "COMPLETED", "FAILED", "CRASHED")["type"] == "COMPLETED"
        assert (ann.ran(), bea.ran()) == (ann.own, bea.own)
        pools = [ask(stack, f"/flow_runs/{run}")["work_pool_name"] for run in (running, waiting, new)]
        assert pools == [ann.pool, ann.pool, bea.pool]
        flows = [len(clone.runs()["train"]) for clone in clones]
        assert flows == [2, 1], "each in its own folder"

    found = [one.detail for one in examine(bea.folder) if one.name == "deployments"]
    assert found[0].startswith(f"{ALL} run here; ")
    assert found[1].startswith(f"1 run waits in work pool {ann.pool!r}: ")
    found = [one.detail for one in examine(ann.folder) if one.name == "deployments"]
    assert found == [f"{ALL} run in {bea.folder} on {platform.node()}, deployed by {who(bea.folder)}"]
    said = bea.erv("run", "--deploy", "--cancel-waiting").stdout.splitlines()
    assert said[0] == f"cancelled: the run that waited in work pool {ann.pool!r}"
    assert state_of(stack, later)["type"] == "CANCELLED"

    # A worker that is not `erv run --worker` of the clone: it has the environment of another one.
    for name in ("last.txt", "joined.txt"):
        (bea.folder / name).unlink()
    run = start_run(stack)
    state = served_by_hand(stack, ann, bea.pool, run)
    assert state["type"] == "FAILED"
    assert state["message"].startswith(
        f"{bea.folder}: `erv` is imported from {ann.folder / 'src/erv'}, not from"
    )
    assert bea.ran() == []


@pytest.mark.slow
def test_the_pool_of_earlier_versions_is_left_with_a_word(
    stack: Environment, clones: tuple[Clone, Clone]
) -> None:
    """It was one for all clones, and its deployments named their folders themselves."""
    ann, _ = clones
    if FORMER not in [pool["name"] for pool in ask(stack, "/work_pools/filter", {})]:
        ask(stack, "/work_pools/", {"name": FORMER, "type": "process"})
    step = {"prefect.deployments.steps.set_working_directory": {"directory": str(ann.folder)}}
    former = {}
    for flow, name in (("train", "local"), ("nothing", "own")):
        former[flow] = {
            "name": name,
            "flow_id": ask(stack, "/flows/", {"name": flow})["id"],
            "entrypoint": f"flows/{flow}.py:{flow}",
            "pull_steps": [step],
            "tags": [],
            "work_pool_name": FORMER,
        }
        ask(stack, "/deployments/", former[flow])
    run = start_run(stack)
    try:
        ann.erv("run", "--deploy", "--replace")  # `promote/local` may be another test's
        ask(stack, "/deployments/", former["train"])
        said = ann.erv("run", "--deploy").stdout.splitlines()
        assert said[0] == f"moved to work pool {ann.pool}: a worker of 'erv' gets no new runs, so stop it"
        assert said[1].startswith(
            "1 run waits in work pool 'erv': the pool is no clone's, so no worker of this"
        )
        assert said[3].startswith("work pool 'erv' of earlier versions still has nothing/own, and")
        found = [one.detail for one in examine(ann.folder) if one.name == "deployments"]
        assert [said[1], said[3].partition(": ")[0]] == found[1:]
        assert served_by_hand(stack, ann, FORMER, run)["type"] in ("FAILED", "CRASHED")
        assert ann.ran() == []
    finally:
        prefect(stack, ann, "--no-prompt", "deployment", "delete", "nothing/own")


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


def test_a_pool_names_machine_and_folder_and_stays_the_same(tmp_path: Path) -> None:
    name = pool_of(Path("/home/ann/erv"), "box.example")
    assert re.fullmatch(r"erv-box-example-home-ann-erv-[0-9a-f]{6}", name)
    assert pool_of(Path("/home/ann/erv"), "box.example") == name
    others = {
        pool_of(Path("/home/ann-erv"), "box.example"),
        pool_of(Path("/home/ann/erv"), "box-example"),
        pool_of(Path("/home/ann/erv")),
    }
    assert len(others - {name}) == 3
    (tmp_path / "link").symlink_to(tmp_path)
    assert pool_of(tmp_path / "link") == pool_of(tmp_path)
    assert len(pool_of(Path("/home") / ("very-long" * 20), "box")) < 80
