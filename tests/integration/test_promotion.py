"""The promote flow waits for a person, and people are told: a real Prefect server and a real receiver."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from erv.environment import Environment, isolate
from erv.errors import RegistryError
from erv.lineage.gate import LineageGate
from erv.lineage.links import Link
from erv.lineage.node import Node
from erv.lineage.trace import Provenance
from erv.register import aliases
from erv.register.aliases import (
    ChampionMovedError,
    GatesUnmetError,
    champion_of,
    hand_over,
    make_champion,
)
from erv.register.reign import Reign, now, reigns
from erv.register.review import review
from erv.register.turn import registry_turn
from erv.register.verdict import LINEAGE, WITHDRAWN, Verdict
from erv.register.versions import CHALLENGER, EXTERNAL_TAG, GATES_TAG
from erv.settings import Settings, load_settings
from erv.stack.deployments import Place
from erv.stack.launch import prefect_environment
from erv.stack.takeover import Takeover, tell
from erv.tracking.description import PUBLISH_RUN_TAG
from erv.tracking.lock_entries import client_of
from erv.tracking.origin import STARTED_BY_TAG
from flows.drift import METRIC, tell_drift
from flows.graph import StageReport
from flows.team import run_by, tag_of
from tests.conftest import ROOT
from tests.integration.prefect_api import ask
from tests.integration.scratch import wait_until
from tests.support.receiver import Receiver

pytestmark = pytest.mark.integration

PASSED = Verdict("WAR", minimum=0.5, low=0.7, high=0.8, outcome="pass")
FAILED = Verdict("EPC", minimum=0.5, low=0.1, high=0.2, outcome="fail")


def holds(number: str) -> Verdict:
    """A lineage that is not asked for here."""
    raise AssertionError(f"no gate asks for the lineage of version {number}")


promote, rollback = partial(aliases.promote, lineage=holds), partial(aliases.rollback, lineage=holds)


@pytest.fixture
def workspace(stack: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """A registered model of its own: version 1 is champion, 2 passed its gates, 3 did not."""
    monkeypatch.chdir(tmp_path)
    name = f"model-{uuid.uuid4().hex[:8]}"
    text = (ROOT / "params.yaml").read_text().replace("emotion-policy", name)
    # These versions have no files.
    (tmp_path / "params.yaml").write_text(text.replace("require_lineage: true", "require_lineage: false"))
    (tmp_path / "prefect.yaml").write_text((ROOT / "prefect.yaml").read_text())
    for folder in ("src", "flows"):  # a flow refuses the code of another folder
        (tmp_path / folder).symlink_to(ROOT / folder)
    environment = replace(stack, workspace=tmp_path)
    isolate(environment)
    client = client_of(environment)
    client.create_registered_model(name)
    for verdicts in ([PASSED], [PASSED], [PASSED, FAILED]):
        gates = json.dumps([verdict.as_dict() for verdict in verdicts])
        client.create_model_version(name, "s3://erv-mlflow/none", tags={GATES_TAG: gates})
    make_champion(client, name, Reign("1", now(), "test", "gates"))
    client.set_registered_model_alias(name, CHALLENGER, "2")
    return environment


def name_of(environment: Environment) -> str:
    return load_settings(environment.workspace / "params.yaml").register_.model_name


class Flow:
    """A flow in a process of its own, as a worker runs it."""

    def __init__(self, environment: Environment, code: str) -> None:
        environment.state.mkdir(exist_ok=True)
        lines = [f"{key}={value}" for key, value in environment.variables().items()]
        environment.stack_file.write_text("\n".join(lines) + "\n")
        self.environment, self.tag = environment, uuid.uuid4().hex
        variables = prefect_environment(environment)
        variables["PYTHONPATH"] = f"{ROOT / 'src'}:{ROOT}"
        self.log = environment.workspace / f"{self.tag}.log"
        named = tag_of(name_of(environment))
        whose = run_by("Ann Lee (ann@box)", Path("/home/ann/erv"))
        program = f"from prefect import tags\nwith tags('{self.tag}', '{named}', '{whose}'):\n    {code}"
        self._stream = self.log.open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=environment.workspace,
            env=variables,
            stdout=self._stream,
            stderr=subprocess.STDOUT,
        )

    def run(self) -> dict[str, Any]:
        found = ask(self.environment, "/flow_runs/filter", {"flow_runs": {"tags": {"all_": [self.tag]}}})
        return found[0] if found else {"state": None}

    def wait_for(self, *states: str) -> dict[str, Any]:
        def reached() -> bool:
            return (self.run()["state"] or {}).get("type") in states

        wait_until(lambda: reached() or self.process.poll() is not None, seconds=120.0)
        assert reached(), self.log.read_text()
        return self.run()

    def wait_until_asked(self, times: int = 1) -> dict[str, Any]:
        """Waits until the form is there for the first, or another, time; returns the run."""

        def asked() -> bool:
            return self.log.read_text().count("execution will continue") >= times

        wait_until(lambda: asked() or self.process.poll() is not None, seconds=120.0)
        assert asked(), self.log.read_text()
        paused = self.wait_for("PAUSED")
        keys = paused["state"]["state_details"]["run_input_keyset"]
        assert keys["schema"].startswith(f"paused-{times}-"), keys

        def saved() -> bool:  # after the state is set, the description last
            found = {"prefix": keys["description"]}
            return bool(ask(self.environment, f"/flow_runs/{paused['id']}/input/filter", found))

        wait_until(saved)
        return paused

    def shown(self) -> str:
        """What the form shows now."""
        paused = self.run()
        key = paused["state"]["state_details"]["run_input_keyset"]["description"]
        return str(ask(self.environment, f"/flow_runs/{paused['id']}/input/{key}"))

    def resume(self, **said: object) -> dict[str, Any]:
        return ask(self.environment, f"/flow_runs/{self.run()['id']}/resume", {"run_input": said})

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(60)
        self._stream.close()


Start = Callable[..., Flow]


@pytest.fixture
def start(workspace: Environment) -> Iterator[Start]:
    started: list[Flow] = []

    def begin(version: str, *, hours: float = 1.0, answers: int = 20) -> Flow:
        code = (
            f"import flows.promote as p; p.ANSWERS = {answers};"
            f" p.promote('{version}', hours={hours}, return_state=True)"
        )
        started.append(Flow(workspace, code))
        return started[-1]

    yield begin
    for flow in started:
        flow.end()


def test_a_person_approves_in_prefect(workspace: Environment, start: Start) -> None:
    flow = start(CHALLENGER)
    flow.wait_until_asked()
    client, name = client_of(workspace), name_of(workspace)
    shown = flow.shown()
    assert f"{name} version 2" in shown
    assert re.search(r"the present one: version 1, since \S+Z, gates by test\.", shown)
    assert "pass: WAR 0.7000 to 0.8000" in shown
    client.set_registered_model_alias(name, CHALLENGER, "3")  # what nobody looked at
    assert flow.resume(name="", reason="")["status"] == "REJECT"
    assert champion_of(client, name) == "1"
    assert flow.resume(name="Ann", reason="better on calls")["status"] == "ACCEPT"
    done = flow.wait_for("COMPLETED", "FAILED")
    said = done["state"]["message"]
    assert re.fullmatch(
        rf"{name} version 2 is now the champion; it was version 1, since \S+Z, gates by test", said
    )
    last = reigns(client, name)[-1]
    assert (last.version, last.by, last.how) == ("2", "Ann in Prefect", "promote")
    assert last.reason == "better on calls"


def test_the_form_asks_again_for_what_an_answer_lacks(workspace: Environment, start: Start) -> None:
    """The run failed, with the words of the command line, where Force was not ticked."""
    flow = start("3")
    flow.wait_until_asked()
    assert "tick **Force**" in flow.shown()
    assert "Asked again" not in flow.shown()
    flow.resume(name="  ", reason="EPC's judge is wrong")
    flow.wait_until_asked(2)
    assert "**Asked again:** fill in **Your name**.\n" in flow.shown()
    flow.resume(name="Bea", reason="EPC's judge is wrong")
    flow.wait_until_asked(3)
    shown = flow.shown()
    assert "version 3 did not pass 1 of its gates (fail: EPC 0.1000 to 0.2000, needs 0.5000 or more)" in shown
    assert "Tick **Force** to promote it all the same, or untick **Approve**" in shown
    assert champion_of(client_of(workspace), name_of(workspace)) == "1"
    flow.resume(name="Bea", force=True)  # the reason of the answer before stands in the form
    flow.wait_for("COMPLETED")
    last = reigns(client_of(workspace), name_of(workspace))[-1]
    assert (last.version, last.by, last.reason) == ("3", "Bea in Prefect", "EPC's judge is wrong")
    assert last.forced == ("fail: EPC 0.1000 to 0.2000, needs 0.5000 or more",)
    said = flow.log.read_text()
    assert "Traceback" not in said
    assert "--" not in said


@pytest.mark.slow
def test_an_answer_that_another_champion_has_overtaken_is_asked_for_again(
    workspace: Environment, start: Start
) -> None:
    """What was approved was to take the place of another version."""
    client, name = client_of(workspace), name_of(workspace)
    flow = start("2")
    flow.wait_until_asked()
    promote("3", workspace, load_settings(), by="bea@box", reason="hurry", force=True)
    flow.resume(name="Ann", reason="better")
    flow.wait_until_asked(2)
    assert champion_of(client, name) == "3"
    shown = flow.shown()
    assert "expected version 1 as champion, but the champion is version 3, since " in shown
    assert re.search(r"the present one: version 3, since \S+Z, promote by bea@box\.", shown)
    flow.resume(name="Ann", reason="better than that")
    flow.wait_for("COMPLETED")
    assert champion_of(client, name) == "2"


@pytest.mark.slow
def test_the_form_asks_no_more_than_so_often_and_so_long(workspace: Environment, start: Start) -> None:
    often, long = start("3", answers=2), start("2", hours=0.002)
    for times in (1, 2):
        often.wait_until_asked(times)
        often.resume(name="Ann", reason="hurry")
    state = often.wait_for("COMPLETED", "FAILED")["state"]
    assert state["type"] == "FAILED"
    assert state["message"].startswith("none of 2 answers could be followed; nothing was changed. The last: ")
    state = long.wait_for("COMPLETED", "FAILED")["state"]
    assert state["type"] == "FAILED"
    # Prefect's server may have noticed it first.
    told = (
        "nobody decided within 0.002 hours; nothing was changed",
        "The flow was failed and never resumed.",
    )
    assert state["message"] in told
    assert "Traceback" not in long.log.read_text()
    assert champion_of(client_of(workspace), name_of(workspace)) == "1"


def test_a_program_approves_as_the_page_says(workspace: Environment, start: Start) -> None:
    """The block of docs/daily.md, with the id of a run."""
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/daily.md").read_text(), re.S)
    flow = start("2")
    run_id = flow.wait_until_asked()["id"]
    program = block.replace("FLOW-RUN-ID", run_id)
    assert run_id in program
    said = subprocess.run(
        [sys.executable, "-c", program],
        env=prefect_environment(workspace),
        cwd=workspace.workspace,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.stdout.strip() == "ACCEPT", said.stdout + said.stderr
    flow.wait_for("COMPLETED")
    assert reigns(client_of(workspace), name_of(workspace))[-1].by == "Ann in Prefect"


def test_nobody_is_asked_about_the_champion(workspace: Environment, start: Start) -> None:
    """The form said "version 1 is to become champion; the present one: version 1", and waited."""
    done = start("champion").wait_for("COMPLETED", "FAILED", "PAUSED")
    assert done["state"]["type"] == "COMPLETED"
    assert re.fullmatch(
        rf"{name_of(workspace)} version 1 \(champion\) is already the champion, .*; nothing was changed",
        done["state"]["message"],
    )


@pytest.mark.slow
def test_a_person_declines(workspace: Environment, start: Start) -> None:
    flow = start("2")
    flow.wait_until_asked()
    flow.resume(name="Ann", reason="too slow", approve=False)
    done = flow.wait_for("COMPLETED")
    assert done["state"]["message"] == "Ann declined version 2: too slow"
    assert champion_of(client_of(workspace), name_of(workspace)) == "1"


@pytest.fixture
def told(workspace: Environment) -> Iterator[tuple[Environment, Receiver]]:
    """A workspace whose automations post to a receiver; they are gone afterwards."""
    receiver = Receiver()
    environment = replace(workspace, notify_url=receiver.url)
    yield environment, receiver
    code = (
        "from prefect.client.orchestration import get_client\n"
        "with get_client(sync_client=True) as client:\n"
        "    for one in client.read_automations():\n"
        "        client.delete_automation(one.id)\n"
    )
    variables = prefect_environment(environment)
    subprocess.run([sys.executable, "-c", code], env=variables, cwd=environment.workspace, check=True)
    receiver.shutdown()


def furnish(environment: Environment) -> str:
    variables = {**prefect_environment(environment), "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    command = [sys.executable, "-m", "flows.notices"]
    result = subprocess.run(
        command, env=variables, cwd=environment.workspace, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
def test_people_are_told(told: tuple[Environment, Receiver]) -> None:
    environment, receiver = told
    said = furnish(environment)
    assert said == furnish(environment), "repeating it makes nothing new"
    assert said.count("posts to ERV_NOTIFY_URL") == 4
    assert receiver.url not in said
    assert len(ask(environment, "/automations/filter", {})) == 4
    silent = furnish(replace(environment, notify_url=None))
    assert "what was set up before goes on posting" in silent
    assert f"'{name_of(environment)}: a run failed', " in silent
    # Another team sets up its own news on the same server, for another model.
    elsewhere, theirs = environment.workspace / "elsewhere", Receiver()
    elsewhere.mkdir()
    for file in ("params.yaml", "prefect.yaml"):
        text = (environment.workspace / file).read_text()
        (elsewhere / file).write_text(text.replace(name_of(environment), "their_model"))
    furnish(replace(environment, workspace=elsewhere, notify_url=theirs.url))
    assert len(ask(environment, "/automations/filter", {})) == 8

    name, settings = name_of(environment), load_settings()
    promote("3", environment, settings, by="ann@box", reason='"better"', force=True)
    rollback(environment, settings, by="bea@box")
    with pytest.raises(RegistryError):
        promote("3", environment, settings, by="ann@box")
    taken = Takeover(name, ("train/local",), Place("/home/ann/erv", "Ann Lee (ann@box)"))
    assert tell(environment, taken, "Bea (bea@box)") is None
    failing = (
        "from prefect import flow\n"
        "    @flow(name='train')\n    def train(): raise ValueError('no \"disk\" left')\n"
        "    train(return_state=True)"
    )
    other = failing.replace("'train'", "'other'").replace("disk", "other disk")
    flows = [Flow(environment, code) for code in (other, failing)]
    try:
        wait_until(lambda: len(receiver.posts) >= 4, seconds=120.0)
    finally:
        for flow in flows:
            flow.process.wait(120)
            flow.end()
    texts = receiver.texts()
    (crowned,) = [text for text in texts if "promote by ann@box" in text]
    assert crowned.startswith(f"{name} version 3 since ")
    assert ': "better"\n' in crowned
    assert "\n  1 gate overridden:\n    fail: EPC" in crowned
    assert crowned.endswith("the champion before was version 1")
    (back,) = [text for text in texts if "rollback by bea@box" in text]
    assert back.endswith("the champion before was version 3")
    (moved,) = [text for text in texts if text.startswith("Bea (bea@box) has taken over train/local from ")]
    assert "/home/ann/erv on box, deployed by Ann Lee (ann@box): new runs work in " in moved
    (failed,) = [text for text in texts if text.startswith("train (")]
    assert " of Ann Lee (ann@box) in /home/ann/erv Failed: " in failed
    assert 'no "disk" left' in failed
    assert "/runs/flow-run/" in failed
    assert not any("other disk" in text for text in texts)
    assert theirs.texts() == []
    theirs.shutdown()


def test_without_an_address_nobody_is_told(workspace: Environment) -> None:
    assert "ERV_NOTIFY_URL is not set" in furnish(workspace)


def test_drift_of_a_training_is_told(workspace: Environment) -> None:
    client = client_of(workspace)
    experiment = client.create_experiment(name_of(workspace))
    runs: dict[str, str | None] = {}
    for stage, warnings in {"grpo@erv": 2, "grpo@calm": 0, "grpo@old": 3}.items():
        runs[stage] = client.create_run(experiment).info.run_id
        client.log_metric(str(runs[stage]), METRIC, warnings)
    reports = [
        StageReport("grpo@erv", "ran"),
        StageReport("grpo@calm", "ran"),
        StageReport("grpo@old", "unchanged"),
        StageReport("report", "ran"),
    ]
    assert tell_drift(workspace, name_of(workspace), reports, runs) == ["grpo@erv"]
    body = {"filter": {"event": {"name": ["erv.drift"]}, "resource": {"id": ["erv.stage.grpo@erv"]}}}

    def kept() -> list[dict[str, Any]]:
        events = ask(workspace, "/events/filter", body)["events"]
        return [event for event in events if event["payload"]["run"] == runs["grpo@erv"]]

    wait_until(lambda: bool(kept()))
    assert kept()[0]["resource"]["erv.model"] == name_of(workspace)
    assert kept()[0]["payload"]["text"].startswith("grpo@erv warned of drift 2 times while it trained;")


def reign_of(environment: Environment) -> list[tuple[str, str, str]]:
    """Version, how and why of each reign."""
    found = reigns(client_of(environment), name_of(environment))
    return [(reign.version, reign.how, reign.reason) for reign in found]


BEGAN = ("1", "gates", "")


def test_a_champion_by_other_means_is_in_the_reign_and_hides_no_other(workspace: Environment) -> None:
    client, name = client_of(workspace), name_of(workspace)
    client.set_registered_model_alias(name, "champion", "2")
    shown = [BEGAN, ("2", "elsewhere", "")]
    assert reign_of(workspace) == shown
    rollback(workspace, load_settings(), by="ann@box", reason="worse")
    assert reign_of(workspace) == [*shown, ("1", "rollback", "worse")]
    last = reigns(client, name)[-1]
    assert last.by == "ann@box"
    assert last.since
    # Nothing was noted by versions of erv that knew no reign.
    for tag in [tag for tag in client.get_registered_model(name).tags if tag.startswith("erv.reign")]:
        client.delete_registered_model_tag(name, tag)
    assert reign_of(workspace) == [("1", "elsewhere", "")]


def test_a_promotion_that_was_killed_before_its_note_is_noted_when_repeated(workspace: Environment) -> None:
    client, name = client_of(workspace), name_of(workspace)
    client.set_registered_model_alias(name, "champion", "2")  # as far as it came
    said = promote("2", workspace, load_settings(), by="ann@box", reason="better")
    assert said == f"{name} version 2 was already the champion; since when and why is noted only now"
    assert reign_of(workspace) == [BEGAN, ("2", "promote", "better")]
    said = promote("2", workspace, load_settings(), by="bea@box", reason="again")
    assert re.fullmatch(rf"{name} version 2 is already the champion, since \S+Z, promote by ann@box", said)
    make_champion(client, name, Reign("2", now(), "test", "gates"))  # a publication that is resumed
    assert reign_of(workspace) == [BEGAN, ("2", "promote", "better")]
    client.set_registered_model_alias(name, "champion", "3")
    with pytest.raises(RegistryError, match="did not pass 1 of its gates"):
        promote("3", workspace, load_settings(), by="ann@box")


def interrupted(*arguments: object, **options: object) -> None:
    raise KeyboardInterrupt


def test_a_rollback_that_was_interrupted_before_its_alias_counts_once(
    workspace: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Repeated, it was there twice, with a champion by other means in between."""
    client, name, settings = client_of(workspace), name_of(workspace), load_settings()
    promote("2", workspace, settings, by="ann@box", reason="better")
    began = [BEGAN, ("2", "promote", "better")]
    for how in ("rollback", "promote"):  # the same again, or what else leads to that version
        with monkeypatch.context() as killed:
            killed.setattr(type(client), "set_registered_model_alias", interrupted)
            with pytest.raises(KeyboardInterrupt):
                rollback(workspace, settings, by="ann@box", reason="worse")
        assert champion_of(client, name) == "2"
        assert reign_of(workspace) == began, "it has not begun"
        again = rollback if how == "rollback" else partial(promote, "1")
        said = again(workspace, settings, by="bea@box", reason="worse")
        assert re.search(r"it was version 2, since \S+Z, promote by ann@box$", said)
        assert champion_of(client, name) == "1"
        began = [*began, ("1", how, "worse")]
        assert reign_of(workspace) == began
        assert reigns(client, name)[-1].by == "bea@box"
        promote("2", workspace, settings, by="ann@box", reason="better")
        began = [*began, ("2", "promote", "better")]
    rollback(workspace, settings, by="ann@box", reason="worse")
    client.set_registered_model_alias(name, "champion", "2")  # by other means indeed
    rollback(workspace, settings, by="ann@box", reason="worse")
    back = ("1", "rollback", "worse")
    assert reign_of(workspace) == [*began, back, ("2", "elsewhere", ""), back]


def test_a_rollback_that_was_interrupted_after_its_alias_goes_no_further(
    workspace: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, name, settings = client_of(workspace), name_of(workspace), load_settings()
    promote("2", workspace, settings, by="ann@box")
    promote("3", workspace, settings, by="ann@box", reason="hurry", force=True)
    with monkeypatch.context() as killed:
        killed.setattr(aliases, "complete", interrupted)
        with pytest.raises(KeyboardInterrupt):
            rollback(workspace, settings, by="ann@box", reason="worse")
    known = reign_of(workspace)
    assert known[-1] == ("2", "rollback", "worse")
    said = rollback(workspace, settings, by="ann@box")
    assert re.fullmatch(
        rf"{name} version 2 is the champion again already, since \S+Z, rollback by ann@box, by a command that"
        " was interrupted; run it again to go further back",
        said,
    )
    assert (champion_of(client, name), reign_of(workspace)) == ("2", known)
    assert "version 1 is the champion again" in rollback(workspace, settings, by="ann@box")


def test_the_reign_of_a_deleted_version_is_kept_and_rollback_passes_it_over(workspace: Environment) -> None:
    client, name, settings = client_of(workspace), name_of(workspace), load_settings()
    promote("2", workspace, settings, by="ann@box", reason="better on calls")
    promote("3", workspace, settings, by="bea@box", reason="hurry", force=True)
    client.delete_model_version(name, "2")
    said = rollback(workspace, settings, by="ann@box", reason="worse")
    assert re.fullmatch(
        rf"{name} version 1 is the champion again; it was version 3, since \S+Z, promote by bea@box;"
        " passed over version 2, which was deleted",
        said,
    )
    assert champion_of(client, name) == "1"
    _, second, *others = [reign.text() for reign in reigns(client, name)]
    assert second.startswith("version 2, which was deleted, since ")
    assert second.endswith("Z, promote by ann@box: better on calls")
    assert len(others) == 2
    promote("3", workspace, settings, by="bea@box", reason="hurry", force=True)
    client.delete_model_version(name, "1")
    with pytest.raises(RegistryError, match=r"no previous champion that still exists \(version 1, which was"):
        rollback(workspace, settings, by="ann@box")


def run(environment: Environment, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in a workspace that knows the servers."""
    environment.state.mkdir(exist_ok=True)
    lines = [f"{key}={value}" for key, value in environment.variables().items()]
    environment.stack_file.write_text("\n".join(lines) + "\n")
    variables = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    command = [sys.executable, "-c", "from erv.cli import main; main()", *arguments]
    return subprocess.run(
        command, env=variables, cwd=environment.workspace, capture_output=True, text=True, check=False
    )


def test_promote_says_whose_place_is_taken_and_what_an_alias_meant(workspace: Environment) -> None:
    name = name_of(workspace)
    said = promote(CHALLENGER, workspace, load_settings(), by="ann@box")
    assert re.fullmatch(
        rf"{name} version 2 \(challenger\) is now the champion; it was version 1, since \S+Z, gates by test",
        said,
    )
    client_of(workspace).set_registered_model_alias(name, "champion", "3")
    said = rollback(workspace, load_settings(), by="ann@box")
    assert said.startswith(
        f"{name} version 2 is the champion again; it was version 3, by other means than erv"
    )


@pytest.mark.slow
def test_nobody_takes_the_place_of_another_champion_than_the_expected(workspace: Environment) -> None:
    """A colleague's promotion in between went unseen."""
    client, name = client_of(workspace), name_of(workspace)
    promote("3", workspace, load_settings(), by="bea@box", reason="hurry", force=True)
    sentence = (
        rf"error: {name}: expected version 1 as champion, but the champion is version 3, since \S+Z,"
        r" promote by bea@box; nothing was changed\n"
    )
    for command in (("promote", "2", "--from", "1"), ("rollback", "--from", "1")):
        refused = run(workspace, *command)
        assert refused.returncode == 1
        assert re.fullmatch(sentence, refused.stderr), refused.stderr
        assert champion_of(client, name) == "3"
    assert "but the champion is version 3" in run(workspace, "promote", "2", "--from", "none").stderr
    wrong = run(workspace, "rollback", "--from", "champion")
    assert wrong.returncode == 2
    assert "expected the number of a version, or none; got 'champion'" in wrong.stderr

    assert run(workspace, "promote", "2", "--from", "3").returncode == 0
    assert champion_of(client, name) == "2"
    again = run(workspace, "promote", "2", "--from", "3")
    assert (again.returncode, champion_of(client, name)) == (1, "2")
    assert "expected version 3 as champion, but the champion is version 2, since" in again.stderr
    again = run(workspace, "promote", "2", "--from", "2")
    assert (again.returncode, again.stderr) == (0, "")
    assert "version 2 is already the champion" in again.stdout
    assert run(workspace, "rollback", "--from", "2").returncode == 0
    assert champion_of(client, name) == "3"
    refused = run(workspace, "rollback", "--from", "2")
    assert (refused.returncode, champion_of(client, name)) == (1, "3"), "it goes no further back"
    client.delete_registered_model_alias(name, "champion")
    assert (
        "expected version 3 as champion, but there is none;"
        in run(workspace, "rollback", "--from", "3").stderr
    )
    assert run(workspace, "promote", "2", "--from", "none").returncode == 0


def test_a_withdrawn_clip_keeps_versions_from_the_place_of_the_champion(workspace: Environment) -> None:
    """A rollback brought back what had learned from it, without a word."""
    client, name, settings = client_of(workspace), name_of(workspace), load_settings()
    found = Verdict(WITHDRAWN, outcome="fail", reason="it learned from mafw/00063")

    def withdrawn(number: str) -> tuple[Verdict, ...]:
        return (found,) if number == "1" else ()

    promote("2", workspace, settings, by="ann@box", withdrawn=withdrawn)
    again = rf"{name} version 1, the champion before, should not be served; .*\n  {found.text()}"
    with pytest.raises(GatesUnmetError, match=again):
        rollback(workspace, settings, by="ann@box", withdrawn=withdrawn)
    with pytest.raises(GatesUnmetError, match=found.text()):
        promote("1", workspace, settings, by="ann@box", withdrawn=withdrawn)
    shown = review("1", workspace, settings, lineage=holds, withdrawn=withdrawn)
    assert shown.against[-1] == found.text()
    assert champion_of(client, name) == "2"
    said = rollback(workspace, settings, by="ann@box", reason="now", force=True, withdrawn=withdrawn)
    assert "overridden" in said
    assert list(reigns(client, name)[-1].forced) == [found.text()]


def test_a_number_with_zeros_in_front_names_no_version(workspace: Environment) -> None:
    """MLflow takes 02 for version 2."""
    client, name = client_of(workspace), name_of(workspace)
    for target in ("02", "0", "\u0662"):
        with pytest.raises(RegistryError, match=rf"{name} has no version '{target}': versions are 1, 2, 3"):
            promote(target, workspace, load_settings(), by="ann@box")
    assert champion_of(client, name) == "1"
    refused = run(workspace, "promote", "2", "--from", "01")
    assert refused.returncode == 2
    assert "expected the number of a version, or none; got '01', which has zeros in front" in refused.stderr
    assert champion_of(client, name) == "1"


def test_a_rollback_without_a_champion_says_that_there_was_none(workspace: Environment) -> None:
    """It named the last champion as the present one, though its alias was gone."""
    client, name, settings = client_of(workspace), name_of(workspace), load_settings()
    promote("2", workspace, settings, by="ann@box")
    client.delete_registered_model_alias(name, "champion")
    said = rollback(workspace, settings, by="ann@box")
    assert said == f"{name} version 1 is the champion again; there was none, and version 2 was the last"
    assert champion_of(client, name) == "1"


def with_lineage(environment: Environment) -> Settings:
    """From now on a gate asks for the lineage of versions."""
    path = environment.workspace / "params.yaml"
    text = path.read_text().replace("require_lineage: false", "require_lineage: true")
    path.write_text(text)
    return load_settings()


def test_promote_and_rollback_look_at_the_lineage_of_now(workspace: Environment) -> None:
    """They trusted what was decided when the version was published, or looked at nothing."""
    client, name, settings = client_of(workspace), name_of(workspace), with_lineage(workspace)
    gates = json.dumps([verdict.as_dict() for verdict in (PASSED, Verdict(LINEAGE, outcome="pass"))])
    client.set_model_version_tag(name, "2", GATES_TAG, gates)
    now_is = {
        "fail": Verdict(LINEAGE, outcome="fail", reason="1 broken; code/erv/files.py: changed"),
        "can't tell": Verdict(LINEAGE, outcome="can't tell", reason="S3 is away"),
    }
    for verdict in now_is.values():
        with pytest.raises(GatesUnmetError, match=f"did not pass 1 of its gates.*\n  {verdict.text()}"):
            promote("2", workspace, settings, by="ann@box", lineage=lambda number, v=verdict: v)
        assert champion_of(client, name) == "1"
    broken = now_is["fail"]
    said = promote(
        "2", workspace, settings, by="ann@box", lineage=lambda number: broken, force=True, reason="hurry"
    )
    assert said.endswith("; 1 gate overridden")
    assert reigns(client, name)[-1].forced == (broken.text(),)
    sentence = (
        f"{name} version 1, the champion before, can't be served as it is; go back to it in spite of that"
        f" with --force --reason TEXT\n  {broken.text()}"
    )
    with pytest.raises(GatesUnmetError, match=re.escape(sentence)):
        rollback(workspace, settings, by="ann@box", lineage=lambda number: broken)
    assert champion_of(client, name) == "2"
    back = rollback(
        workspace, settings, by="ann@box", lineage=lambda number: broken, force=True, reason="worse"
    )
    assert back.endswith("; 1 gate overridden")
    assert (champion_of(client, name), reigns(client, name)[-1].forced) == ("1", (broken.text(),))


def test_sources_on_another_machine_count_as_they_did_at_registration(
    workspace: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever promotes from another machine had to force it, though all had been verified there.

    The machine that published it first was named, also if another one had verified it.
    """
    client, name, settings = client_of(workspace), name_of(workspace), with_lineage(workspace)
    experiment = client.create_experiment(f"{name}-published")
    run = client.create_run(experiment, tags={STARTED_BY_TAG: "Ann Lee (ann@first)"})
    client.set_model_version_tag(name, "2", PUBLISH_RUN_TAG, run.info.run_id)

    def verified_on(machine: str | None) -> None:
        verdicts = (PASSED, Verdict(LINEAGE, outcome="pass", machine=machine))
        gates = json.dumps([verdict.as_dict() for verdict in verdicts])
        client.set_model_version_tag(name, "2", GATES_TAG, gates)

    there = Link("data/sources/mafw.lock.json", None, "/data/mafw is not on this machine", elsewhere=True)
    served, unread = Link("served files", True, "as registered"), Link("bundle", None, "S3 is away")
    shown = [there, served]
    monkeypatch.setattr(Provenance, "trace", lambda self, number: Node(number, links=list(shown)))
    gate = LineageGate(workspace, settings, promoting=True)
    verified_on(None)
    assert gate("2").outcome == "can't tell", "nobody knows where it was verified"
    verified_on(platform.node())
    assert gate("2").outcome == "can't tell", "the folder is gone from the machine that had it"
    verified_on("box")
    assert gate("2").outcome == "pass"
    assert "1 not verifiable from here" in gate("2").reason
    assert gate("2").reason.endswith(
        "is not on this machine; all was verified on box when it was published there"
    )
    published = LineageGate(workspace, settings)("2")
    assert (published.outcome, published.machine) == ("can't tell", platform.node()), "it looks now"
    assert gate("1").outcome == "can't tell", "it was never verified"
    for shown, outcome in (
        ([there, unread], "can't tell"),
        ([there, Link("served files", False, "changed")], "fail"),
        ([there, served], "pass"),
    ):
        assert gate("2").outcome == outcome, shown
    assert "is now the champion" in promote("2", workspace, settings, by="ann@box", lineage=gate)


def test_an_external_version_is_not_said_to_have_failed_gates(workspace: Environment) -> None:
    client, name, settings = client_of(workspace), name_of(workspace), load_settings()
    number = str(
        client.create_model_version(name, "s3://erv-mlflow/none", tags={EXTERNAL_TAG: "true"}).version
    )
    with pytest.raises(GatesUnmetError) as refused:
        promote(number, workspace, settings, by="ann@box")
    assert str(refused.value) == (
        f"{name} version {number} can't become champion by its gates; promote it in spite of that with"
        " --force --reason TEXT\n  it is external, so its gates are never decided"
    )
    said = promote(number, workspace, settings, by="ann@box", force=True, reason="a partner's")
    assert said.endswith("; 1 obstacle overridden")


def test_the_form_shows_the_lineage_of_now(workspace: Environment, start: Start) -> None:
    client, name = client_of(workspace), name_of(workspace)
    gates = json.dumps([verdict.as_dict() for verdict in (PASSED, Verdict(LINEAGE, outcome="pass"))])
    client.set_model_version_tag(name, "2", GATES_TAG, gates)
    flow = start("2")
    flow.wait_until_asked()
    shown = flow.shown()
    assert "pass: lineage" not in shown
    assert re.search(r"fail: lineage: \d links checked, \d broken \(bundle.*s3://erv-mlflow/none", shown), (
        shown
    )
    assert "It did not pass 1 of its gates. To promote it all the same, tick **Force**." in shown
    flow.resume(name="Ann", reason="better")
    flow.wait_until_asked(2)
    assert "version 2 did not pass 1 of its gates (fail: lineage: " in flow.shown()
    assert champion_of(client, name) == "1"
    flow.resume(name="Ann", reason="better", force=True)
    flow.wait_for("COMPLETED")
    assert champion_of(client, name) == "2"
    (forced,) = reigns(client, name)[-1].forced
    assert forced.startswith("fail: lineage: ")


def test_force_covers_no_more_than_the_form_showed(workspace: Environment, start: Start) -> None:
    """A file that was changed after the form was shown was overridden, too, though nobody had seen it."""
    client, name = client_of(workspace), name_of(workspace)
    flow = start("3")
    flow.wait_until_asked()
    late = Verdict(LINEAGE, outcome="fail", reason="a file was changed meanwhile")
    gates = json.dumps([verdict.as_dict() for verdict in (PASSED, FAILED, late)])
    client.set_model_version_tag(name, "3", GATES_TAG, gates)  # from now on, its lineage counts
    flow.resume(name="Ann", reason="better", force=True)
    flow.wait_until_asked(2)
    assert champion_of(client, name) == "1"
    shown = flow.shown()
    assert "something keeps version 3 from becoming champion that you were not shown" in shown
    assert re.search(r"- fail: lineage: \d links checked, \d broken", shown)
    flow.resume(name="Ann", reason="better", force=True)
    flow.wait_for("COMPLETED")
    assert champion_of(client, name) == "3"
    assert [gate[:13] for gate in reigns(client, name)[-1].forced] == ["fail: EPC 0.1", "fail: lineage"]


def test_the_expected_champion_is_looked_up_within_the_turn(workspace: Environment) -> None:
    """Looked up before, a colleague who has the turn would be overtaken."""
    name, settings = name_of(workspace), load_settings()
    with ThreadPoolExecutor() as pool:
        with registry_turn(workspace, name):
            waiting = pool.submit(promote, "2", workspace, settings, by="ann@box", expected="1")
            time.sleep(2)
            make_champion(client_of(workspace), name, Reign("3", now(), "bea@box", "promote"))
        with pytest.raises(ChampionMovedError):
            waiting.result(120)


def test_the_reign_of_a_copy_goes_to_the_version_that_stays(workspace: Environment) -> None:
    client, name = client_of(workspace), name_of(workspace)
    promote("2", workspace, load_settings(), by="ann@box", reason="better")
    hand_over(client, name, "2", "3")
    client.delete_model_version(name, "2")
    assert reign_of(workspace) == [BEGAN, ("3", "promote", "better")]
    assert champion_of(client, name) == "3"


def test_a_champion_changes_while_prefect_is_away(
    workspace: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    away = replace(workspace, prefect_api_url="http://127.0.0.1:9/api")
    promote("2", away, load_settings(), by="ann@box")
    assert champion_of(client_of(workspace), name_of(workspace)) == "2"
    assert (
        "the champion is changed, but Prefect could not be told: Prefect at http://127.0.0.1:9" in caplog.text
    )
