"""The train flow on a scratch pipeline: what it runs, tells, tracks, stores, and how it fails."""

from __future__ import annotations

import re
import urllib.request

import pytest
from mlflow.entities import Run

from erv.environment import Environment
from erv.pipeline import read_lock_entries
from erv.storage.store import open_store
from erv.tracking.lock_entries import ENTRY_TAG, entry_hash, run_tag
from tests.integration.prefect_api import ask
from tests.integration.scratch import Scratch

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def scratch(stack: Environment, tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    return Scratch(tmp_path_factory.mktemp("flow"), stack)


@pytest.fixture(scope="module")
def first(scratch: Scratch) -> str:
    scratch.control("make", "3")
    done = scratch.erv("run")
    return done.stdout + done.stderr  # what a terminal shows


def flow_state(scratch: Scratch, flow_run_id: str) -> dict:
    return ask(scratch.environment, f"/flow_runs/{flow_run_id}")


def link_artifact(scratch: Scratch, flow_run_id: str, key: str) -> str | None:
    """What a link that a flow run has left in Prefect points to."""
    body = {"artifacts": {"key": {"any_": [key]}, "flow_run_id": {"any_": [flow_run_id]}}}
    found = ask(scratch.environment, "/artifacts/filter", body)
    if not found:
        return None
    (link,) = re.findall(r"\]\((.*)\)", found[0]["data"])
    return link


def assert_data_docs_are_linked(scratch: Scratch, parent: Run, status: str) -> None:
    """In Prefect and in the parent run's note, to an artifact of the run of `join` that MLflow hands out."""
    link = link_artifact(scratch, parent.data.tags["prefect.flow_run_id"], "data-docs-join")
    assert link is not None
    assert f"[join]({link})" in parent.data.tags["mlflow.note.content"]
    match = re.fullmatch(r"(.*)/#/experiments/(\d+)/runs/(\w+)/artifacts/(.*)", link)
    assert match, link
    base, experiment, run_id, path = match.groups()
    run = next(run for run in scratch.runs()["join"] if run.info.run_id == run_id)
    assert (run.info.experiment_id, run.info.status) == (experiment, status)
    address = f"{base}/get-artifact?run_uuid={run_id}&path={path}"
    request = urllib.request.Request(address, headers=scratch.environment.mlflow_headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.read() == b"<p>42 clips are valid</p>"


def test_every_stage_runs_and_the_summary_tells(scratch: Scratch, first: str) -> None:
    assert first.count("4 stages: 4 ran") == 1
    for name in ("MLflow", "Prefect"):
        assert re.search(rf"^{name} +http", first, re.M), first
    assert (scratch.folder / "last.txt").is_file()


def test_each_run_is_tied_to_its_lock_entry_and_to_its_flow(scratch: Scratch, first: str) -> None:
    runs = scratch.runs()
    parent = runs["train"][-1]
    assert parent.info.status == "FINISHED"
    lock = read_lock_entries(scratch.folder / "dvc.lock")
    assert set(lock) == {"make@a", "make@b", "join", "last"}
    for name, entry in lock.items():
        run = runs[name][-1]
        assert run.info.status == "FINISHED"
        assert run.data.tags[ENTRY_TAG] == entry_hash(entry)
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["prefect.flow_run_id"] == parent.data.tags["prefect.flow_run_id"]
        assert parent.data.tags[run_tag(name)] == run.info.run_id


def test_outputs_are_in_the_store(scratch: Scratch, first: str) -> None:
    store = open_store(scratch.environment)
    for entry in read_lock_entries(scratch.folder / "dvc.lock").values():
        md5 = entry["outs"][0]["md5"]
        assert store.exists(f"s3://{scratch.environment.dvc_bucket}/files/md5/{md5[:2]}/{md5[2:]}")


def test_prefect_knows_a_task_per_stage_and_its_order(scratch: Scratch, first: str) -> None:
    flow_run_id = scratch.runs()["train"][-1].data.tags["prefect.flow_run_id"]
    body = {"flow_runs": {"id": {"any_": [flow_run_id]}}}
    tasks = {task["name"]: task for task in ask(scratch.environment, "/task_runs/filter", body)}
    assert set(tasks) == {"make@a", "make@b", "join", "last"}
    upstream = {item["id"] for item in tasks["join"]["task_inputs"]["wait_for"]}
    assert upstream == {tasks["make@a"]["id"], tasks["make@b"]["id"]}
    # Side by side: the one began before the other had ended.
    begun = max(tasks[name]["start_time"] for name in ("make@a", "make@b"))
    ended = min(tasks[name]["end_time"] for name in ("make@a", "make@b"))
    assert begun < ended


def test_a_cached_run_names_the_earlier_runs(scratch: Scratch, first: str) -> None:
    before = {name: runs[0].info.run_id for name, runs in scratch.runs().items() if name != "train"}
    (scratch.folder / "joined.txt").unlink()
    output = scratch.erv("run").stdout
    assert "4 stages: 3 unchanged, 1 restored" in output
    runs = scratch.runs()
    assert {name: found[0].info.run_id for name, found in runs.items() if name != "train"} == before
    tags = runs["train"][0].data.tags
    assert {name: tags[run_tag(name)] for name in before} == before
    assert_data_docs_are_linked(scratch, runs["train"][0], "FINISHED")


def test_a_run_with_nothing_to_do_starts_no_dvc_for_a_stage(scratch: Scratch, first: str) -> None:
    """Each started one, which asked the remote too: a second of CPU and more, to learn nothing."""
    known = {name: runs[0].info.run_id for name, runs in scratch.runs().items() if name != "train"}
    result = scratch.erv("run")
    assert "4 stages: 4 unchanged" in result.stdout
    text = result.stdout + result.stderr
    for name in known:
        assert f"Stage '{name}' didn't change, skipping" in text
    assert "Data and pipelines are up to date" not in text  # what `dvc repro` of a stage says
    parent = scratch.runs()["train"][0]
    assert {name: parent.data.tags[run_tag(name)] for name in known} == known
    body = {"flow_runs": {"id": {"any_": [parent.data.tags["prefect.flow_run_id"]]}}}
    tasks = {task["name"]: task["state_type"] for task in ask(scratch.environment, "/task_runs/filter", body)}
    assert tasks == dict.fromkeys(known, "COMPLETED")


def test_a_failing_stage_fails_the_flow_in_its_own_words(scratch: Scratch, first: str) -> None:
    scratch.control("join", "0 fail")
    background = scratch.start("run")
    try:
        assert background.process.wait(120) == 1
    finally:
        background.end()
        scratch.control("join", "0")
    sentence = "join: clip 7 of the scratch set is broken; take another one"
    runs = scratch.runs()
    docs = f"/runs/{runs['join'][0].info.run_id}/artifacts/data_docs/scratch.html"
    last = background.text().rstrip().splitlines()[-1]
    assert re.fullmatch(rf"error: {re.escape(sentence)}; its Data Docs: http://\S+{docs}", last)
    assert "NoneType" not in background.text()
    assert "last    not run" in background.text()
    assert "Traceback" not in background.text()
    state = flow_state(scratch, background.flow_run_id())["state"]
    assert (state["type"], f"error: {state['message']}") == ("FAILED", last)
    assert runs["join"][0].info.status == runs["train"][0].info.status == "FAILED"
    assert ENTRY_TAG not in runs["join"][0].data.tags
    assert_data_docs_are_linked(scratch, runs["train"][0], "FAILED")


@pytest.mark.slow
def test_one_failing_arm_does_not_stop_the_others(scratch: Scratch, first: str) -> None:
    scratch.control("make", "0 fail:a")
    try:
        result = scratch.erv("run", "--workers", "1", check=False)
    finally:
        scratch.control("make", "3")
    assert result.returncode == 1
    said = result.stdout + result.stderr
    for line in ("make@b  ran", "make@a  failed", "join    not run    needs make@a", "last    not run"):
        assert line in said, said
    assert said.rstrip().endswith("error: make@a: clip 7 of the scratch set is broken; take another one")


def test_a_missing_file_is_reported_before_any_stage(scratch: Scratch, first: str) -> None:
    control = scratch.folder / "control/join.txt"
    control.rename(control.with_suffix(".gone"))
    try:
        result = scratch.erv("run", check=False)
    finally:
        control.with_suffix(".gone").rename(control)
    assert result.returncode == 1
    assert result.stderr.rstrip().endswith("error: control/join.txt: not found; restore it from git")


@pytest.mark.slow
def test_force_runs_what_was_named_and_leaves_what_it_needs_to_dvc(scratch: Scratch, first: str) -> None:
    scratch.erv("run")
    said = scratch.erv("run", "--force", "join").stdout
    assert "3 stages: 2 unchanged, 1 ran" in said
    assert re.search(r"join +ran", said)


@pytest.mark.slow
def test_one_stage_runs_alone(scratch: Scratch, first: str) -> None:
    scratch.erv("run")
    (scratch.folder / "last.txt").unlink()
    said = scratch.erv("run", "--only", "last", "--force").stdout
    assert "1 stage: 1 ran" in said
    assert (scratch.folder / "last.txt").is_file()


@pytest.mark.slow
def test_a_stage_alone_is_refused_if_what_it_reads_is_not_up_to_date(scratch: Scratch, first: str) -> None:
    scratch.erv("run")
    before = (scratch.folder / "dvc.lock").read_bytes()
    (scratch.folder / "joined.txt").unlink()
    missing = scratch.erv("run", "--only", "last", check=False)
    assert missing.returncode == 1
    assert "error: last can't run alone: joined.txt of join is missing; `erv run last`" in missing.stderr
    scratch.erv("run")
    scratch.control("join", "0.1")
    try:
        stale = scratch.erv("run", "--only", "last", check=False)
    finally:
        scratch.control("join", "0")
    assert stale.returncode == 1
    assert "error: last can't run alone: joined.txt of join is out of date;" in stale.stderr
    assert (scratch.folder / "dvc.lock").read_bytes() == before, "nothing ran"
    several = scratch.erv("run", "--only", "make", check=False)
    assert several.returncode == 2
    assert "runs/flow-run/" not in several.stderr, "a flow that fails is told to the whole team"
    assert "error: make is 2 stages, expected one: make@a, make@b" in several.stderr


@pytest.mark.slow
def test_without_a_server_it_says_so(tmp_path_factory: pytest.TempPathFactory, stack: Environment) -> None:
    scratch = Scratch(tmp_path_factory.mktemp("alone"), stack)
    stack_file = scratch.folder / ".erv/stack.env"
    api = stack.prefect_api_url or ""
    stack_file.write_text(stack_file.read_text().replace(api, "http://127.0.0.1:9/api"))
    result = scratch.erv("run", check=False)
    assert result.returncode == 1
    assert "Prefect at http://127.0.0.1:9/api/health can't be reached" in result.stderr
    assert "run `erv stack up`" in result.stderr


@pytest.mark.slow
def test_what_is_no_longer_asked_for_is_set_aside(scratch: Scratch, first: str) -> None:
    definition = scratch.folder / "dvc.yaml"
    before = definition.read_text()
    scratch.erv("run")
    made = (scratch.folder / "made/b.txt").read_text()
    definition.write_text(before.replace("name: [a, b]", "name: [a]"))
    result = scratch.erv("run")
    assert "3 stages: " in result.stdout
    assert re.search(r"set aside .*: \.erv/set-aside/\w+/made/b\.txt;", result.stdout + result.stderr)
    assert not (scratch.folder / "made/b.txt").exists()
    definition.write_text(before)
    assert "4 stages: 2 unchanged, 2 restored" in scratch.erv("run").stdout
    assert (scratch.folder / "made/b.txt").read_text() == made
