"""Which run is which: names, differences, who and what, experiments of DVC, and MLflow's page of them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from erv.comparison.changed_data import data_since
from erv.comparison.sides import find_side
from erv.environment import Environment, hand_over_token
from erv.errors import RegistryError
from erv.evaluate.measured import measured_tags
from erv.lineage.trace import Provenance
from erv.register.versions import CHALLENGER, PUBLISH_RUN_TAG
from erv.settings import load_settings
from erv.tracking.delivery import Delivery, Outage, deliver_spool, write_header
from erv.tracking.description import (
    CHAMPION,
    LAST,
    PARENT_RUN_TAG,
    Reference,
    champion_run,
    describe,
    last_run,
)
from erv.tracking.experiment_page import CURVES_TAG, CURVES_VIEW, VIEW_TAG, address, set_up_page
from erv.tracking.experiments import experiment_run
from erv.tracking.header import RunHeader
from erv.tracking.lock_entries import (
    ENTRY_TAG,
    LOCK_ARTIFACT_FOLDER,
    PARENT_TAG,
    client_of,
    containing_run,
    entry_hash,
    server_of,
)
from erv.tracking.opening import open_run
from erv.tracking.origin import user, who
from erv.tracking.outbox import Status
from erv.tracking.rest import Run
from erv.tracking.since import since
from erv.tracking.system_metrics import system_metrics
from tests.conftest import ROOT
from tests.integration.scratch import Scratch, wait_until
from tests.unit.register.test_register import predictions, write_evaluation

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def scratch(stack: Environment, tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    scratch = Scratch(tmp_path_factory.mktemp("which"), stack)
    commit(scratch)
    return scratch


@pytest.fixture(scope="module")
def two_runs(scratch: Scratch) -> list:
    """The runs of two flows that differ in the seed, the newest first."""
    scratch.erv("run")
    change_seed(scratch, 7)
    scratch.erv("run")
    return scratch.runs()["train"]


def commit(scratch: Scratch) -> None:
    (scratch.folder / ".gitignore").write_text("/made\n/joined.txt\n/last.txt\n/.erv\n")
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", "add", "."], cwd=scratch.folder, check=True)
    subprocess.run(["git", *identity, "commit", "-qm", "all"], cwd=scratch.folder, check=True)


def change_seed(scratch: Scratch, seed: int) -> None:
    path = scratch.folder / "params.yaml"
    path.write_text(re.sub(r"(?m)^seed: \d+", f"seed: {seed}", path.read_text()))


def test_a_run_says_what_it_is(scratch: Scratch, two_runs: list) -> None:
    second, first = two_runs
    assert (first.info.run_name, second.info.run_name) == ("erv · fold 1", "erv · seed 7 · fold 1")
    assert second.data.params["seed"] == "7"
    assert second.data.params["datasets"] == "[mafw, dfew, reasoning]"
    assert second.data.params["machine.extract.workers"] == first.data.params["machine.extract.workers"]
    tags = second.data.tags
    assert tags["erv.changed.last"] == "seed 101 → 7"
    assert "| seed | 101 | 7 |" in tags["mlflow.note.content"]
    assert first.info.run_id[:8] in tags["mlflow.note.content"]
    assert (tags["erv.seed"], tags["erv.fold"], tags["erv.candidate"]) == ("7", "1", "erv")
    assert (tags["erv.targets"], tags["erv.kind"], tags["mlflow.user"]) == ("all", "flow", user())
    assert tags["erv.started_by"] == who(scratch.folder)
    assert (len(tags["erv.git_commit"]), tags["erv.git_dirty"]) == (40, "true")
    assert first.data.tags["erv.git_dirty"] == "false"


@pytest.mark.slow
def test_the_commit_is_that_of_the_start(
    stack: Environment, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The summary named the HEAD at the end, which nothing had run at; the tag has the one at the start."""
    scratch = Scratch(tmp_path_factory.mktemp("moved"), stack)
    commit(scratch)
    scratch.erv("run")
    scratch.control("make", "2")
    commit(scratch)
    run = scratch.start("run")
    try:
        run.wait_for("begins")
        (scratch.folder / "notes.txt").write_text("what no stage reads\n")
        commit(scratch)
        assert run.process.wait(120) == 0, run.text()
    finally:
        run.end()
    second, first = (run.data.tags["erv.git_commit"] for run in scratch.runs()["train"])
    assert f"  commit {first[:8]} → {second[:8]}" in run.text()


def test_the_last_finished_run_is_found(scratch: Scratch, two_runs: list) -> None:
    found = last_run(scratch.environment, who(scratch.folder))
    assert found is not None
    assert found.info.run_id == two_runs[0].info.run_id


def test_a_colleague_s_run_is_not_taken_for_one_s_own(scratch: Scratch, two_runs: list) -> None:
    """The newest one was, whoever had started it on the same experiment."""
    environment, mine = scratch.environment, two_runs[0].info
    me, bea = who(scratch.folder), "Bea O'Neil (root@box)"

    def last_of(person: str) -> str:
        found = last_run(environment, person)
        assert found is not None
        return found.info.run_id

    assert last_of(bea) == mine.run_id, "her first run is compared with that of anybody"
    client = client_of(environment)
    tags = {"erv.kind": "flow", "erv.started_by": bea}
    hers = client.create_run(mine.experiment_id, tags=tags).info.run_id
    client.set_terminated(hers, "FINISHED")
    try:
        assert last_of(bea) == hers
        assert last_of(me) == mine.run_id
        described = {
            person: describe(environment, {"seed": 7}, candidate="erv", model="none", started_by=person)
            for person in (me, "Cid (root@box)")
        }
        assert f"since the last run of {me}, " in described[me].tags["mlflow.note.content"]
        assert (
            "since the last run of Bea O'Neil (root@box), "
            in described["Cid (root@box)"].tags["mlflow.note.content"]
        )
    finally:
        client.delete_run(hers)


def test_the_run_of_the_champion_is_found(scratch: Scratch, two_runs: list) -> None:
    environment, model = scratch.environment, f"which-{scratch.folder.name}"
    client = client_of(environment)
    assert champion_run(environment, model) is None, "there is no such model"
    client.create_registered_model(model)
    assert champion_run(environment, model) is None, "it has no champion"
    first = two_runs[1]
    tags = {PARENT_RUN_TAG: first.info.run_id}
    source = f"{first.info.artifact_uri}/model"
    version = client.create_model_version(model, source, first.info.run_id, tags=tags).version
    client.set_registered_model_alias(model, CHALLENGER, version)
    assert champion_run(environment, model) is None
    client.set_registered_model_alias(model, CHAMPION, version)
    found = champion_run(environment, model)
    assert found is not None
    assert found.info.run_id == first.info.run_id


def test_stages_of_an_experiment_of_dvc_are_below_its_run(scratch: Scratch, two_runs: list) -> None:
    commit(scratch)
    scratch.python("-m", "dvc", "exp", "run", "-q", "-n", "tenth", "-S", "seed=10", "last")
    runs = scratch.runs()
    (experiment,) = [r for name, found in runs.items() if "tenth" in name for r in found]
    assert experiment.info.run_name == "erv · seed 10 · fold 1 · tenth"
    assert experiment.info.status == "FINISHED"
    assert experiment.data.params["seed"] == "10"
    tags = experiment.data.tags
    assert (tags["erv.kind"], tags["erv.dvc_experiment"]) == ("experiment", "tenth")
    below = [r for found in runs.values() for r in found if is_below(r, experiment)]
    assert {run.info.run_name for run in below} == {"make@a", "make@b", "join", "last"}
    assert {run.data.tags["erv.dvc_experiment"] for run in below} == {"tenth"}
    found = last_run(scratch.environment, who(scratch.folder))
    assert found is not None
    assert found.info.run_id == experiment.info.run_id


@pytest.fixture
def in_experiment(stack: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """A folder in which DVC runs the experiment `quarter`, as far as a stage can tell."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    run_git(tmp_path, "init", "-q")
    monkeypatch.setenv("DVC_EXP_NAME", "quarter")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "b" * 40)
    return replace(stack, workspace=tmp_path, mlflow_experiment=tmp_path.name)


def run_git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def apply(folder: Path, what: str) -> None:
    """As DVC does before it runs an experiment: what it applies to the baseline is a commit."""
    run_git(folder, "commit", "-q", "--allow-empty", "-m", what)
    run_git(folder, "update-ref", "refs/exps/exec/EXEC_MERGE", "HEAD")


def opened(environment: Environment) -> str:
    run_id = experiment_run(environment, {})
    assert run_id is not None
    return run_id


def test_a_name_that_is_used_again_is_another_run(in_experiment: Environment) -> None:
    folder, server = in_experiment.workspace, server_of(in_experiment)
    first = opened(in_experiment)
    assert opened(in_experiment) == first, "the next stage of the same experiment"
    path = folder / "params.yaml"
    path.write_text(re.sub(r"(?m)^seed: \d+", "seed: 8", path.read_text()))
    second = opened(in_experiment)
    assert second != first
    assert server.get_run(second).data.params["seed"] == "8"
    apply(folder, "first")
    third = opened(in_experiment)
    apply(folder, "the same values once more")
    assert len({first, second, third, opened(in_experiment)}) == 4


def test_parameters_that_an_outage_lost_are_logged_by_the_next_stage(
    in_experiment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> Iterator[int]:
        raise Outage("MLflow is gone")

    with monkeypatch.context() as broken:
        broken.setattr(Delivery, "deliver", lost)
        assert experiment_run(in_experiment, {}) is None
    run = server_of(in_experiment).get_run(opened(in_experiment))
    assert run.data.params["seed"] == "101"
    assert run.data.tags["erv.dvc_experiment"] == "quarter"
    number = run.info.experiment_id
    assert len(server_of(in_experiment).search_runs(number, "tags.`erv.kind` = 'experiment'")) == 1


def test_an_experiment_ends_with_its_last_stage_and_has_its_figures(in_experiment: Environment) -> None:
    server = server_of(in_experiment)

    def stage(status: Status, values: dict[str, float]) -> Run:
        run = open_run(in_experiment, "report", "report")
        above = server.get_run(opened(in_experiment))
        run.log_results(values)
        run.close(status)
        assert server.get_run(str(run.run_id)).data.tags["mlflow.parentRunId"] == above.info.run_id
        return above

    metric = "erv/overall/EPC"
    first = stage("FINISHED", {metric: 0.5})
    assert first.info.status == "RUNNING"
    ended = server.get_run(first.info.run_id)
    assert (ended.info.status, server.metrics(first.info.run_id)) == ("FINISHED", {metric: 0.5})
    assert ended.info.end_time >= ended.info.start_time
    assert "erv.targets" not in ended.data.tags, "DVC doesn't say which stages were asked for"
    assert metric in server.experiment_tags(ended.info.experiment_id)[VIEW_TAG], "it has the page"
    assert stage("FAILED", {}).info.status == "RUNNING", "the next stage goes on with it"
    assert server.get_run(first.info.run_id).info.status == "FAILED"
    stage("FINISHED", {})  # of `dvc exp run --keep-going`
    assert server.get_run(first.info.run_id).info.status == "FAILED"


def test_figures_are_compared_with_those_of_an_experiment(in_experiment: Environment) -> None:
    """Only a flow said what its figures were measured on, so those of experiments were never compared."""
    folder = in_experiment.workspace / "eval"

    def measured(right: int, prefix: str = "") -> dict[str, str]:
        write_evaluation(
            folder, predictions(right, 50, prefix=prefix), judge={"digest": "j"}, decoding={"n": 1}
        )
        return measured_tags(folder / "predictions.parquet", folder / "metrics.json")

    metric = "erv/overall/EPC"
    run = open_run(in_experiment, "report", "report")
    run.log_results({metric: 0.5})
    run.set_measured(measured(40))
    run.close("FINISHED")
    before = server_of(in_experiment).get_run(opened(in_experiment))
    reference = Reference(LAST, before, [])
    lines = since(in_experiment, [reference], {metric: 0.6}, None, measured(50))
    assert lines[-1] == "  erv EPC: 50.0 → 60.0 (+10.0)"
    lines = since(in_experiment, [reference], {metric: 0.6}, None, measured(50, "other"))
    assert "measured on other test clips" in lines[-1]


def test_an_experiment_ends_with_a_killed_stage(in_experiment: Environment) -> None:
    above = opened(in_experiment)
    folder = in_experiment.state / "spool" / "killed"
    folder.mkdir(parents=True)
    write_header(folder, RunHeader("k" * 32, "grpo@erv", 1_000_000, pid=2**22 + 1, experiment=above))
    assert deliver_spool(in_experiment) == 1
    assert server_of(in_experiment).get_run(above).info.status == "KILLED"


def keep_pipeline(environment: Environment, seed: int, tags: dict[str, str], name: str = "a run") -> str:
    """A run with the files that say what ran: one stage, with a seed."""
    server, folder = server_of(environment), environment.workspace / name
    folder.mkdir()
    entry = {"cmd": "x", "params": {"params.yaml": {"seed": seed}}, "outs": [{"path": "o", "md5": "1" * 32}]}
    files = {
        "dvc.lock": json.dumps({"schema": "2.0", "stages": {"evaluate@erv": entry}}),
        "dvc.yaml": "stages: {evaluate: {matrix: {policy: [erv]}, cmd: x}}\n",
        "params.yaml": f"seed: {seed}\n",
    }
    header = RunHeader(uuid.uuid4().hex, "publish", 1_000_000, tags, name=name)
    run_id = Delivery(environment).open(header)
    for file, text in files.items():
        (folder / file).write_text(text)
        server.log_artifact(run_id, folder / file, LOCK_ARTIFACT_FOLDER)
    return run_id


def register(environment: Environment, model: str, run_id: str, tags: dict[str, str]) -> None:
    client = client_of(environment)
    client.create_registered_model(model)
    version = client.create_model_version(model, "s3://none/model", run_id, tags=tags).version
    client.set_registered_model_alias(model, CHAMPION, version)


@pytest.fixture
def elsewhere(stack: Environment, tmp_path: Path) -> Environment:
    return replace(stack, workspace=tmp_path, mlflow_experiment=tmp_path.name)


def test_versions_and_runs_are_sides_of_a_comparison(elsewhere: Environment) -> None:
    model = f"sides-{elsewhere.mlflow_experiment}"
    settings = load_settings(ROOT / "params.yaml")
    named = settings.register_.model_copy(update={"model_name": model})
    settings = settings.model_copy(update={"register_": named})
    run_id = keep_pipeline(elsewhere, 7, {"erv.git_commit": "c" * 40, "erv.git_dirty": "true"})
    stage = Delivery(elsewhere).open(RunHeader("s" * 32, "sft", 1_000_000, {PARENT_TAG: run_id}))
    register(elsewhere, model, run_id, {PUBLISH_RUN_TAG: run_id})
    for target in (run_id, run_id[:8], stage, stage[:12], "champion", f"models:/{model}/1"):
        side = find_side(target, elsewhere, settings)
        assert (dict(side.parameters), list(side.lock), side.remarks) == ({"seed": "7"}, ["evaluate@erv"], ())
    assert find_side("1", elsewhere, settings).title == f"{model} version 1"
    side = find_side(run_id, elsewhere, settings)
    assert (side.title, side.commit, side.dirty) == (f"run a run ({run_id[:8]})", "c" * 40, True)
    assert run_id in Provenance(elsewhere, settings).trace(run_id[:8]).title
    # Seven digits without a letter are taken for a version.
    with pytest.raises(RegistryError, match=r"is no model version, run id|has no version or alias"):
        find_side(run_id[:7], elsewhere, settings)
    bare = Delivery(elsewhere).open(RunHeader("b" * 32, "sft", 1_000_000))
    with pytest.raises(RegistryError, match=r"it keeps no dvc\.lock"):
        find_side(bare, elsewhere, settings)
    with pytest.raises(RegistryError, match="'nonsense' is no model version"):
        find_side("nonsense", elsewhere, settings)


def test_the_data_of_a_run_are_those_that_it_keeps(elsewhere: Environment) -> None:
    run = server_of(elsewhere).get_run(keep_pipeline(elsewhere, 7, {}))
    for file in ("dvc.lock", "dvc.yaml", "params.yaml"):
        shutil.copy(elsewhere.workspace / "a run" / file, elsewhere.workspace)
    assert data_since(run, elsewhere) == ""
    path = elsewhere.workspace / "dvc.lock"
    lock = json.loads(path.read_text())
    lock["stages"]["evaluate@erv"]["deps"] = [{"path": "data/prompts/mine.txt", "md5": "2" * 32}]
    path.write_text(json.dumps(lock))
    assert data_since(run, elsewhere) == "data that differ: data/prompts/mine.txt"
    bare = Delivery(elsewhere).open(RunHeader("n" * 32, "experiment", 1_000_000))
    said = data_since(server_of(elsewhere).get_run(bare), elsewhere)
    assert said == f"data: not compared, as that run keeps no dvc.lock; see `erv compare {bare} .`"


def test_a_champion_without_a_flow_is_compared_with(elsewhere: Environment) -> None:
    """`erv publish` after a plain `dvc repro`: its parameters are in a file of the publication."""
    model = f"plain-{elsewhere.mlflow_experiment}"
    run_id = keep_pipeline(elsewhere, 7, {})
    register(elsewhere, model, run_id, {PUBLISH_RUN_TAG: run_id})
    found = describe(elsewhere, {"seed": 9}, candidate="erv", model=model)
    assert found.tags["erv.changed.champion"] == "seed 7 → 9"
    assert found.name == "erv · seed 9"


def test_what_erv_publish_registers_belongs_to_the_experiment_that_made_it(elsewhere: Environment) -> None:
    entry = {"cmd": "python -m stages.register"}
    assert containing_run(elsewhere, entry) is None
    tags = {ENTRY_TAG: entry_hash(entry), PARENT_TAG: "e" * 32}
    Delivery(elsewhere).open(RunHeader("r" * 32, "register", 1_000_000, tags))
    assert containing_run(elsewhere, entry) == "e" * 32


def test_the_run_of_an_experiment_is_compared_where_git_has_it(in_experiment: Environment) -> None:
    folder, settings = in_experiment.workspace, load_settings(ROOT / "params.yaml")
    hand_over_token(in_experiment)
    run_id = opened(in_experiment)
    with pytest.raises(RegistryError, match="the experiment 'quarter' is not in this clone"):
        find_side(run_id, in_experiment, settings)

    def finish() -> None:
        """As DVC does: the experiment's state is a commit under its name."""
        (folder / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": {"sft": {"cmd": "x"}}}))
        run_git(folder, "add", ".")
        run_git(folder, "commit", "-qm", "experiment")
        run_git(folder, "update-ref", f"refs/exps/bb/{'b' * 38}/quarter", "HEAD")

    finish()
    side = find_side(run_id, in_experiment, settings)
    assert (list(side.lock), side.parameters["seed"]) == (["sft"], "101")
    assert (side.title.count("("), side.title[-10:]) == (1, f"({run_id[:8]})")
    path = folder / "params.yaml"
    path.write_text(re.sub(r"(?m)^seed: \d+", "seed: 8", path.read_text()))
    finish()
    with pytest.raises(RegistryError, match=r"run again with other parameters \(seed 101 → 8\)"):
        find_side(run_id, in_experiment, settings)


@pytest.mark.slow
def test_a_queued_experiment_has_the_servers_of_its_repository(scratch: Scratch, two_runs: list) -> None:
    """DVC runs it in a copy of what is in git, without `.erv`."""
    commit(scratch)
    scratch.python("-m", "dvc", "exp", "run", "--queue", "-n", "queued", "-S", "seed=11", "last")
    scratch.python("-m", "dvc", "queue", "start")
    try:
        wait_until(lambda: "Success" in scratch.python("-m", "dvc", "queue", "status").stdout, seconds=180.0)
    finally:
        said = scratch.python("-m", "dvc", "queue", "logs", "queued", check=False).stdout
        scratch.python("-m", "dvc", "queue", "stop", "--kill", check=False)
    runs = scratch.runs()
    (experiment,) = [r for name, found in runs.items() if "queued" in name for r in found]
    assert experiment.info.run_name == "erv · seed 11 · fold 1 · queued", said
    assert any(is_below(run, experiment) for run in runs["last"])
    assert (scratch.folder / "params.yaml").read_text().count("seed: 11") == 0


def is_below(run, parent) -> bool:
    return run.data.tags.get("mlflow.parentRunId") == parent.info.run_id


# As an earlier version wrote it, without a link to the curves.
DESCRIPTION_BEFORE = """One run per run of the flow or experiment of DVC; those of its stages are below it.

- A run is named by the policy that it makes and by the parameters in which it differs from the champion.
  Its description lists all of them.
- `{policy}/overall/EPC` and the like are metrics on test clips of all data sets together.
- Curves of training are in the runs of the stages `sft` and `grpo@NAME`, under the same names in all of them.
- `tags.erv.kind = 'flow'` finds runs of the flow, `'experiment'` those of DVC;
  `tags.erv.candidate`, `tags.erv.fold`, `tags.erv.seed` and `tags.erv.git_commit` narrow them down.
"""


def test_the_page_of_the_experiment_is_set_up_once(scratch: Scratch, two_runs: list) -> None:
    server = server_of(scratch.environment)
    number = server.experiment_id(scratch.environment.mlflow_experiment)
    assert number is not None
    tags = server.experiment_tags(number)
    assert "[Curves of GRPO](" in tags["mlflow.note.content"]
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    assert "metrics.`erv/overall/EPC`" in json.loads(tags[VIEW_TAG])["selectedColumns"]
    curves = json.loads(tags[CURVES_TAG])
    assert f"(#/experiments/{number}/runs?viewStateShareKey={CURVES_VIEW}&" in tags["mlflow.note.content"]
    # Sorted by time, MLflow would show the run of the flow in place of those below it that have the curves.
    assert (curves["searchFilter"], curves["orderByKey"]) == ("tags.`erv.stage` = 'grpo'", "metrics.`reward`")
    for shown in (curves, json.loads(tags[VIEW_TAG])):
        assert shown["isAccordionReordered"], "otherwise our section comes after those that MLflow adds"
        assert {chart["metricSectionId"] for chart in shown["compareRunCharts"]} == {
            section["uuid"] for section in shown["compareRunSections"]
        }

    present = tags["mlflow.note.content"]
    for before, after in (
        ("ours, by hand", "ours, by hand"),
        (f"{present}And ours.", f"{present}And ours."),
        (DESCRIPTION_BEFORE, present),
        (f"{DESCRIPTION_BEFORE}And ours.", f"{DESCRIPTION_BEFORE}And ours."),
    ):
        server.set_experiment_tag(number, "mlflow.note.content", before)
        set_up_page(scratch.environment, "rft")
        tags = server.experiment_tags(number)
        assert tags["mlflow.note.content"] == after
    assert "metrics.`rft/overall/EPC`" in json.loads(tags[VIEW_TAG])["selectedColumns"]


@pytest.mark.slow
def test_the_summary_names_the_page(scratch: Scratch, two_runs: list) -> None:
    text = scratch.erv("run").stdout
    number = two_runs[0].info.experiment_id
    assert address((scratch.environment.mlflow_uri or "").rstrip("/"), number) in text


def test_the_load_of_the_machine_is_logged(stack: Environment, tmp_path: Path) -> None:
    run = open_run(stack, "load", "load")
    client = client_of(stack)
    with system_metrics(run, seconds=0.2):
        wait_until(
            lambda: len(client.get_metric_history(run.run_id, "system/cpu_utilization_percentage")) > 2
        )
    run.close("FINISHED")
    metrics = client.get_run(run.run_id).data.metrics
    assert metrics["system/system_memory_usage_megabytes"] > 0
    counted = len(client.get_metric_history(run.run_id, "system/cpu_utilization_percentage"))
    time.sleep(1)
    again = client.get_metric_history(run.run_id, "system/cpu_utilization_percentage")
    assert len(again) == counted, "it is not measured after the run"
