"""Schedules on our own Prefect server: they get runs that start, and `erv doctor` sees when they don't."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from erv.doctor import schedules
from erv.doctor.doctor import examine
from erv.doctor.finding import Finding
from erv.environment import Environment
from erv.stack import clean, up
from erv.stack.pools import pool_of
from tests.integration.prefect_api import ask
from tests.integration.scratch import Scratch, wait_until

pytestmark = [pytest.mark.integration]

FLOW = """
from prefect import flow

@flow(name="nothing")
def nothing() -> None:
    pass
"""


def test_a_deployment_with_a_cron_schedule_gets_a_run_that_starts(
    stack: Environment, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With SQLAlchemy 2.1, the scheduler of Prefect 3.8 fails at each pass, and no run is ever made."""
    scratch = Scratch(tmp_path_factory.mktemp("schedules"), stack)
    (scratch.folder / "nothing.py").write_text(FLOW)
    plain = scratch.variables()
    scratch.variables = lambda: {**plain, "PREFECT_WORKER_QUERY_SECONDS": "1"}  # type: ignore[method-assign]
    worker = scratch.start("run", "--worker")
    try:
        worker.wait_for("started!")
        deployment = ask(
            stack,
            "/deployments/",
            {
                "name": "scheduled",
                "flow_id": ask(stack, "/flows/", {"name": "nothing"})["id"],
                "entrypoint": "nothing.py:nothing",
                "path": str(scratch.folder),
                "work_pool_name": pool_of(scratch.folder),
                "schedules": [{"schedule": {"cron": "* * * * * */5"}}],  # the sixth field: seconds
            },
        )
        body = {
            "deployments": {"id": {"any_": [deployment["id"]]}},
            "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}},
        }
        wait_until(lambda: ask(stack, "/flow_runs/filter", body), seconds=120.0)
        run = ask(stack, "/flow_runs/filter", body)[0]
        assert (run["auto_scheduled"], run["created_by"]["type"]) == (True, "SCHEDULE")
        worker.process.send_signal(signal.SIGINT)
        worker.process.wait(60)
    finally:
        worker.end()


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """A Prefect server that answers every request, but whose scheduler can't store a run."""
    workspace = tmp_path_factory.mktemp("failing")
    try:
        environment = up(workspace, ["prefect"])
        with sqlite3.connect(environment.stack / "prefect/prefect.db") as database:
            database.execute(
                "CREATE TRIGGER full BEFORE INSERT ON flow_run BEGIN SELECT RAISE(FAIL, 'no run fits'); END"
            )
        deployment(environment, "hourly", {"interval": 3600})
        deployment(environment, "daily", {"cron": "0 3 * * *"})
        deployment(environment, "yearly", {"cron": "0 3 1 1 *"})
        deployment(environment, "over", {"rrule": "FREQ=DAILY;UNTIL=20200101T000000Z"})
        deployment(environment, "paused", {"cron": "0 3 * * *"}, paused=True)
        yield environment
    finally:
        clean(workspace)


def deployment(environment: Environment, name: str, schedule: dict, paused: bool = False) -> None:
    flow = ask(environment, "/flows/", {"name": "nothing"})["id"]
    schedules = [{"schedule": schedule, "active": True}]
    ask(
        environment,
        "/deployments/",
        {"name": name, "flow_id": flow, "schedules": schedules, "paused": paused},
    )


def findings(environment: Environment, name: str) -> list[Finding]:
    return [finding for finding in examine(environment.workspace) if finding.name == name]


@pytest.mark.slow
def test_the_doctor_names_schedules_without_a_run_ahead(
    failing: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert findings(failing, "schedules") == [], "the scheduler gets time for its next pass"
    monkeypatch.setattr(schedules, "_GRACE", timedelta(0))
    found = findings(failing, "schedules")
    assert [(finding.state, finding.detail.partition(" has ")[0]) for finding in found] == [
        ("fail", "nothing/daily"),
        ("fail", "nothing/hourly"),
    ]
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    assert f"has an active schedule, but since {today}" in found[0].detail
    assert f"the scheduler of Prefect at {failing.prefect_api_url} doesn't work" in found[0].detail
    assert "`erv stack up`" in found[0].remedy
    # The same server, named by the shell of a colleague: nothing of their own is started.
    for name, value in failing.variables().items():
        monkeypatch.setenv(name, value)
    elsewhere = failing.workspace / "clone"
    elsewhere.mkdir(exist_ok=True)
    (finding, _) = [finding for finding in examine(elsewhere) if finding.name == "schedules"]
    assert finding.detail == found[0].detail
    assert "erv stack" not in finding.remedy


@pytest.mark.slow
def test_the_doctor_reads_what_the_servers_log_says_of_its_services(failing: Environment) -> None:
    """The API answers, so that no other check notices."""

    def full() -> list[Finding]:
        return [one for one in findings(failing, "background") if "no run fits" in one.detail]

    wait_until(lambda: full(), seconds=90.0)
    finding = full()[0]  # the pass over all deployments may have failed too by now
    assert finding.detail.startswith("Prefect's service ")
    assert "`erv stack up`" in finding.remedy
    assert str(failing.stack / "logs/prefect.log") in finding.remedy
    (prefect,) = findings(failing, "prefect")
    assert prefect.state == "ok"


def test_the_doctor_finds_nothing_where_the_scheduler_works(
    stack: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment(stack, "works", {"interval": 3600})
    wait_until(
        lambda: ask(stack, "/flow_runs/filter", {"deployments": {"name": {"any_": ["works"]}}}), seconds=60.0
    )
    monkeypatch.setattr(schedules, "_GRACE", timedelta(0))
    assert findings(stack, "schedules") == []
    assert findings(stack, "background") == []
