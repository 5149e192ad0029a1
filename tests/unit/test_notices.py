"""What people are told of runs and deployments, and what is said where nobody can be told."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest
from jinja2 import ChainableUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from prefect.automations import CallWebhook
from prefect.engine import handle_engine_signals
from prefect.exceptions import FailedRun
from prefect.logging.loggers import flow_run_logger

from erv.environment import Environment
from erv.errors import SettingsError
from erv.stack.deployments import Deployed, Place
from erv.stack.takeover import Takeover, takeovers
from flows import console, notices
from flows.team import run_by


def told(*tags: str, **more: object) -> str:
    """The text of a failed run's notice, rendered as Prefect does: in Jinja's sandbox."""
    automation = notices._automation(
        "m: a run failed", notices._on("e", {"a": "b"}), uuid4(), notices._FAILURE
    )
    (action,) = automation.actions
    assert isinstance(action, CallWebhook)
    jinja = ImmutableSandboxedEnvironment(undefined=ChainableUndefined)
    jinja.filters["ui_url"] = lambda run: f"http://prefect/runs/{run.name}"
    state = SimpleNamespace(name="Failed", message='no "disk" left')
    run = SimpleNamespace(name="shiny-pheasant", state=state, tags=list(tags))
    text = jinja.from_string(str(action.payload)).render(
        flow=SimpleNamespace(name="train"), flow_run=run, **more
    )
    return str(json.loads(text)["text"])


def test_a_failed_run_names_person_and_clone() -> None:
    """`train (shiny-pheasant) Crashed: ...` was all that a team of several clones got to know."""
    own = told("erv-model:m", run_by("Ann Lee (ann@box)", Path("/home/ann/erv")))
    assert own.splitlines() == [
        'train (shiny-pheasant) of Ann Lee (ann@box) in /home/ann/erv Failed: no "disk" left',
        "http://prefect/runs/shiny-pheasant",
    ]
    pool = SimpleNamespace(name="erv-box-home-ann-erv-1f0c2d")
    deployed = told("erv-model:m", "erv-deployed-by:Ann Lee (ann@box)", work_pool=pool)
    assert deployed.startswith(
        "train (shiny-pheasant) deployed by Ann Lee (ann@box) in work pool erv-box-home-ann-erv-1f0c2d Failed"
    )
    assert told().startswith("train (shiny-pheasant) Failed: ")


def test_without_an_address_it_is_said_what_goes_on() -> None:
    """It said that nobody is told, while automations of an earlier deployment went on posting."""
    assert notices.without_address("m", []).endswith("so nobody is told of failures and new champions of m")
    said = notices.without_address("m", ["m: a run failed", "m: a new champion"])
    assert "nobody" not in said
    assert "goes on posting to the address given at the time ('m: a run failed', 'm: a new champion')" in said


def test_whoever_is_replaced_is_told_by_whom_and_where_runs_work_now(tmp_path: Path) -> None:
    environment = Environment(workspace=tmp_path)
    ann, here = Place("/home/ann/erv", "Ann Lee (ann@box)"), Place(str(tmp_path), None)
    before = [
        Deployed("train/local", "1", None, ann, 0, True, "theirs"),
        Deployed("promote/local", "2", None, ann, 0, False, "theirs"),
        Deployed("old/local", "3", None, ann, 0, False, None),
        Deployed("own/local", "4", None, here, 0, False, "mine"),
    ]
    found = list(takeovers(environment, before, "mine"))
    assert found == [
        Takeover("theirs", ("train/local", "promote/local"), ann),
        Takeover("mine", ("old/local",), ann),
    ]
    said = found[0].text(environment, "Bea (bea@box)")
    assert said.startswith(
        "Bea (bea@box) has taken over train/local and promote/local from /home/ann/erv on box, deployed by"
        f" Ann Lee (ann@box): new runs work in {tmp_path} on "
    )


@pytest.fixture
def prefect_log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What Prefect's engine logs of a flow run, as a worker's run shows it."""
    loggers = [logging.getLogger(name) for name in ("prefect.flow_runs", "prefect.engine")]
    for logger in loggers:
        logger.addHandler(caplog.handler)
    yield caplog
    for logger in loggers:
        logger.removeHandler(caplog.handler)
        logger.removeFilter(console._no_ended_run)


def test_a_worker_prints_no_traceback_of_a_failed_state(prefect_log: pytest.LogCaptureFixture) -> None:
    def engine(error: Exception) -> None:
        """Ends as `python -m prefect.engine`, whose `run_flow` logs an error before."""
        flow_run_logger(flow_run_id=uuid4()).error("Engine execution exited", exc_info=error)
        with pytest.raises(SystemExit), handle_engine_signals(uuid4()):
            raise error

    console.leave_out_tracebacks_of_ended_runs()
    engine(FailedRun("no stage 'reprot' in dvc.yaml"))
    engine(SettingsError("seed: expected 0 or more"))  # which a state of `flows.workspace` carries
    assert prefect_log.text == ""
    engine(ValueError("a bug"))
    for said in ("Engine execution exited", "exited with unexpected exception", "ValueError: a bug"):
        assert said in prefect_log.text
