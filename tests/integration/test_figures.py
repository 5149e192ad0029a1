"""`erv figures` on a real MLflow server: what ran in this clone and in others, and what is left of it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from erv.cli import main
from erv.environment import Environment
from erv.evaluate.compare import compare
from erv.evaluate.evaluate import write_predictions
from erv.results.gather import Gathered, gather
from erv.results.page import write
from erv.results.result import Result
from erv.tracking.lock_entries import (
    ENTRY_TAG,
    LOCK_ARTIFACT_FOLDER,
    PARENT_TAG,
    entry_hash,
    run_tag,
    server_of,
)
from erv.tracking.outbox import now_ms
from erv.tracking.rest import Metric
from tests.support.reports import predictions_of
from tests.support.result_locks import locked, text_of

pytestmark = pytest.mark.integration

POLICIES = ("sft", "erv")
WARM = {"split": "test", "max_new_tokens": 96, "temperature": 0.7, "judges": [{"kind": "lexical"}]}
ON_GPU = {
    "erv.ran.device": "cuda",
    "erv.ran.precision": "bfloat16",
    "erv.ran.hardware": "1 x NVIDIA H200",
    "erv.ran.libraries": "Python 3.11.2, torch 2.13.0",
    "erv.ran.parameters": "1204224",
    "erv.git_commit": "c" * 40,
    "erv.git_dirty": "true",
}


def comparison() -> bytes:
    """As the report of both policies writes it."""
    found = compare(predictions_of(POLICIES), samples=100, confidence=0.95, seed=0)
    return json.dumps({**found, "judge": {"name": "lexical", "digest": "0123456789abcdef"}}).encode()


@pytest.fixture
def environment(stack: Environment, tmp_path: Path) -> Environment:
    """A clone with an experiment of its own in MLflow."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    name = f"figures-{tmp_path.name}-{now_ms()}"
    return replace(stack, workspace=tmp_path, mlflow_experiment=name, dvc_bucket=name)


class Server:
    """Writes runs as flows and stages leave them."""

    def __init__(self, environment: Environment) -> None:
        self._server = server_of(environment)
        self._number = self._server.experiment_id(
            environment.mlflow_experiment
        ) or self._server.create_experiment(environment.mlflow_experiment)

    def run(
        self,
        name: str,
        tags: Mapping[str, str],
        *,
        artifacts: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> str:
        """A run that has finished."""
        run_id = self._server.create_run(self._number, 1_764_500_000_000, tags, name).info.run_id
        points = [Metric(key, value, now_ms(), 0) for key, value in (metrics or {}).items()]
        self._server.log_batch(run_id, points, params)
        for path, text in (artifacts or {}).items():
            self._server.log_text(run_id, text, path)
        self._server.end_run(run_id, "FINISHED", now_ms())
        return run_id

    def flow(self, lock: dict[str, Any], *, kept: bool = True, **stages: dict[str, Any]) -> str:
        """A run of the flow, and those of its stages: `evaluate_erv={"tags": ...}`."""
        artifacts = {f"{LOCK_ARTIFACT_FOLDER}/dvc.lock": text_of(lock)} if kept else {}
        whole = self.run("erv", {"erv.kind": "flow"}, artifacts=artifacts)
        for stage, given in stages.items():
            name = stage.replace("_", "@", 1)
            tags = {"erv.stage": name.partition("@")[0], PARENT_TAG: whole, ENTRY_TAG: entry_hash(lock[name])}
            self.run(name, {**tags, **given.pop("tags", {})}, **given)
        return whole


def own(found: Gathered, policy: str = "erv") -> list[Result]:
    return [item for item in found.results if item.policy == policy and not item.published]


def test_a_result_of_another_clone_has_its_figures_setting_and_record(environment: Environment) -> None:
    lock = locked()
    Server(environment).flow(
        lock,
        evaluate_erv={"tags": ON_GPU},
        grpo_erv={"tags": {**ON_GPU, "erv.ran.trained_parameters": "1000"}},
        report={"artifacts": {"comparison.json": comparison().decode()}},
    )
    (result,) = own(gather(environment))
    wanted = json.loads(comparison())["policies"]["erv"]["mafw"]["EPC"]
    figure = result.figures["EPC"]
    assert (figure.value, figure.low, figure.high) == (wanted["value"], wanted["low"], wanted["high"])
    assert (result.dataset, result.clips) == ("mafw", 12)
    assert {
        key: result.get(key) for key in ("precision", "hardware", "model.parameters", "model.trained")
    } == {
        "precision": "bfloat16 on cuda",
        "hardware": "1 x NVIDIA H200",
        "model.parameters": "1,204,224",
        "model.trained": "1,000",
    }
    assert result.get("judge") == "lexical, version 0123456789ab"
    assert result.get("ingest.fold") == "1"
    assert result.record["commit"] == "c" * 40
    assert result.record["uncommitted changes"] == "yes"
    assert result.record["lock entry"] == entry_hash(lock["evaluate@erv"])
    (cold,) = own(gather(environment), "sft")
    assert cold.get("precision") == "unknown (asked for: float32 on auto)"
    assert cold.record["commit"] == "unknown"


def test_the_same_result_in_git_and_in_flows_is_one_and_others_stand_beside_it(
    environment: Environment, tmp_path: Path
) -> None:
    server, lock = Server(environment), locked()
    for _ in range(2):
        server.flow(lock, report={"artifacts": {"comparison.json": comparison().decode()}})
    server.flow(locked(evaluate=WARM), report={"artifacts": {"comparison.json": comparison().decode()}})
    (environment.workspace / "dvc.lock").write_text(text_of(lock))
    found = gather(environment)
    # Of one date, they come in the order of their keys.
    decoded = {item.get("decoding"): item for item in own(found)}
    assert len(own(found)) == 2
    assert decoded.keys() == {"greedy", "sampled at temperature 0.7"}
    assert decoded["greedy"].record["found in"].startswith("the workspace, MLflow run ")
    assert found.only(policies=["sft"]).results == tuple(own(found, "sft"))
    first, second = (write(gather(environment), tmp_path / name) for name in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


@pytest.mark.parametrize(
    "damaged",
    [
        {"policies": {"erv": {"mafw": {"WAR": 0.5}}}},
        {"policies": {"erv": {"mafw": {"WAR": {"value": 0.5}}}}, "confidence": "high"},
    ],
)
def test_a_report_of_another_form_is_named_and_harms_no_other_result(
    environment: Environment, damaged: dict[str, Any], tmp_path: Path
) -> None:
    server = Server(environment)
    server.flow(
        locked(), report={"artifacts": {"comparison.json": json.dumps(damaged | {"judge": "lexical"})}}
    )
    server.flow(locked(evaluate=WARM), report={"artifacts": {"comparison.json": comparison().decode()}})
    found = gather(environment)
    (remark,) = [remark for remark in found.remarks if "figures of erv" in remark]
    assert remark.startswith("comparison.json of MLflow run ")
    assert remark.endswith(": the figures of erv have a form that no report has; left out")
    assert {item.get("decoding"): bool(item.figures) for item in own(found)} == {
        "greedy": False,
        "sampled at temperature 0.7": True,
    }
    write(found, tmp_path / "page")


def test_figures_are_counted_in_the_answers_where_there_is_no_report(environment: Environment) -> None:
    """The report of the lock is of an earlier evaluation, so its figures are those of another result."""
    path = environment.workspace / "predictions.parquet"
    write_predictions(predictions_of(("erv",))["erv"], path)
    answers = path.read_bytes()
    md5 = hashlib.md5(answers, usedforsecurity=False).hexdigest()
    cached = environment.workspace / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    cached.parent.mkdir(parents=True)
    cached.write_bytes(answers)
    lock = locked({"eval/erv/predictions.parquet": answers}, evaluate=WARM) | {"report": locked()["report"]}
    (environment.workspace / "dvc.lock").write_text(text_of(lock))
    Server(environment).flow(
        lock, kept=False, report={"artifacts": {"comparison.json": '{"policies": {"erv": {}}}'}}
    )
    (result,) = own(gather(environment))
    figure = result.figures["WAR"]
    assert figure.value == json.loads(comparison())["policies"]["erv"]["mafw"]["WAR"]["value"]
    assert figure.low is not None
    assert result.clips == 12
    assert "no longer there" not in " ".join(result.remarks)


def test_a_result_whose_data_are_gone_stays_with_its_record(environment: Environment) -> None:
    lock = locked()
    values = {"overall/WAR": 0.5, "mafw/WAR": 0.5, "mafw/EPC": 0.25, "mafw/clips": 60.0}
    Server(environment).flow(lock, evaluate_erv={"tags": ON_GPU, "metrics": values})
    (result,) = own(gather(environment))
    assert (result.figures["EPC"].value, result.figures["EPC"].low, result.clips) == (0.25, None, 60)
    assert result.get("extract.frames") == "8"
    assert result.get("precision") == "bfloat16 on cuda"
    told = " ".join(result.remarks)
    assert "no longer there" in told
    assert "can't be checked" in told  # the lists of folders are gone, too
    (cold,) = own(gather(environment), "sft")
    assert cold.figures == {}
    assert "and its figures with them" in " ".join(cold.remarks)


def test_an_experiment_of_another_clone_is_shown_as_its_run_has_it(environment: Environment) -> None:
    server = Server(environment)
    tags = {"erv.kind": "experiment", "erv.dvc_experiment": "quarter", "erv.dvc_baseline": "b" * 40}
    metrics = {"erv/mafw/WAR": 0.4, "erv/overall/WAR": 0.4}
    server.run("quarter", tags, metrics=metrics, params={"ingest.fold": "3", "machine.processes": "1"})
    (result,) = own(gather(environment))
    assert (result.dataset, result.get("ingest.fold"), result.get("extract.frames")) == (
        "mafw",
        "3",
        "unknown",
    )
    assert "machine.processes" not in result.setting
    assert "kept nowhere" in " ".join(result.remarks)


def test_an_experiment_of_this_clone_is_one_result_with_what_its_run_noted(environment: Environment) -> None:
    folder = environment.workspace
    author = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    (folder / "dvc.lock").write_text(text_of(locked(seed=7)))
    for words in (["add", "dvc.lock"], [*author, "commit", "-qm", "tried"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    baseline = "b" * 40
    ref = f"refs/exps/{baseline[:2]}/{baseline[2:]}/quarter"
    subprocess.run(["git", "update-ref", ref, "HEAD"], cwd=folder, check=True)
    (folder / "dvc.lock").unlink()
    server = Server(environment)
    tags = {"erv.kind": "experiment", "erv.dvc_experiment": "quarter", "erv.dvc_baseline": baseline}
    whole = server.run("quarter", tags, metrics={"erv/mafw/WAR": 0.4})
    below = {"erv.stage": "evaluate", PARENT_TAG: whole, **ON_GPU}
    server.run("evaluate@erv", below, metrics={"mafw/WAR": 0.4, "mafw/clips": 60.0})
    (result,) = own(gather(environment))
    assert (result.get("seed"), result.record["found in"]) == ("7", "experiment quarter")
    assert result.get("precision") == "bfloat16 on cuda"
    assert (result.figures["WAR"].value, result.clips) == (0.4, 60)


def test_experiments_of_one_name_in_other_clones_stand_beside_those_of_this_one(
    environment: Environment,
) -> None:
    """Names of repeats follow from seed and fold, so clones that share a server have the same."""
    folder, baseline, name = environment.workspace, "b" * 40, "repeat-s1-f1"
    author = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    (folder / "dvc.lock").write_text(text_of(locked(seed=7)))
    for words in (["add", "dvc.lock"], [*author, "commit", "-qm", "tried"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    ref = f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}"
    subprocess.run(["git", "update-ref", ref, "HEAD"], cwd=folder, check=True)
    (folder / "dvc.lock").unlink()
    server = Server(environment)

    def experiment(of: str, war: float) -> None:
        tags = {"erv.kind": "experiment", "erv.dvc_experiment": name, "erv.dvc_baseline": of}
        whole = server.run(name, tags, metrics={"erv/mafw/WAR": war})
        below = {"erv.stage": "evaluate", PARENT_TAG: whole}
        server.run("evaluate@erv", below, metrics={"mafw/WAR": war, "mafw/clips": 60.0})

    experiment(baseline, 0.4)  # this clone's
    experiment("a" * 40, 0.5)  # of another baseline
    experiment(baseline, 0.6)  # a colleague's, with other values of what the name doesn't say
    results = own(gather(environment))
    assert sorted(result.figures["WAR"].value or 0.0 for result in results) == [0.4, 0.5, 0.6]
    assert ["kept nowhere" in " ".join(result.remarks) for result in results].count(False) == 1


def test_any_model_that_was_evaluated_is_a_row(environment: Environment) -> None:
    server = Server(environment)
    found = compare({"a folder": predictions_of(("erv",))["erv"]}, samples=100, confidence=0.95, seed=0)
    artifacts = {"figures.json": json.dumps(found), f"{LOCK_ARTIFACT_FOLDER}/dvc.lock": text_of(locked())}
    tags = {"erv.kind": "evaluation", "erv.evaluated": "a folder", "erv.evaluated_digest": "d" * 64}
    whole = server.run("evaluate a folder", tags, artifacts=artifacts)
    below = {"erv.stage": "evaluate", PARENT_TAG: whole, **ON_GPU}
    server.run("evaluate@any-a-folder-dddddddd", below)
    (result,) = own(gather(environment), "a folder")
    assert result.get("ingest.fold") == "1"
    assert result.get("method") == "evaluated as it is: a folder"
    assert result.get("precision") == "bfloat16 on cuda"
    assert result.get("grpo.beta") == "unknown"
    assert result.record["policy hash"] == "d" * 64
    assert own(gather(environment)) == []  # the lock is there for the clips


def test_many_runs_are_asked_for_in_pages_and_not_one_by_one(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each flow without its lock, metrics and the run of its evaluation were asked for one by one."""
    server = Server(environment)
    for number in range(7):
        tags = {"erv.stage": "evaluate", ENTRY_TAG: f"{number:064x}"}
        evaluated = server.run("evaluate@erv", tags)
        named = {"erv.kind": "flow", run_tag("evaluate@erv"): evaluated}
        server.run("erv", named, metrics={"erv/mafw/WAR": number / 10})
    monkeypatch.setattr("erv.tracking.rest._PAGE", 3)
    asked, request = [], requests.Session.request

    def counted(self: requests.Session, method: str, url: str, **given: Any) -> requests.Response:
        asked.append(url.partition("/mlflow/")[2])
        return request(self, method, url, **given)

    monkeypatch.setattr(requests.Session, "request", counted)
    results = own(gather(environment))
    assert sorted(result.figures["WAR"].value or 0.0 for result in results) == [n / 10 for n in range(7)]
    assert {result.record["lock entry"] for result in results} == {f"{n:064x}" for n in range(7)}
    assert asked.count("runs/get") == 0
    assert asked.count("runs/search") >= 2 * 3, "in pages"
    assert asked.count("artifacts/list") == 7, "whether a flow has its lock"


def test_without_mlflow_the_workspace_is_shown_and_the_outage_told(environment: Environment) -> None:
    (environment.workspace / "dvc.lock").write_text(text_of(locked()))
    away = replace(environment, mlflow_uri="http://127.0.0.1:9")
    started = time.monotonic()
    found = gather(away)
    assert time.monotonic() - started < 60
    (remark,) = found.remarks
    assert "MLflow can't be asked" in remark
    (result,) = own(found)
    assert result.get("precision") == "unknown (asked for: float32 on auto)"


def test_an_outage_changes_no_key(environment: Environment) -> None:
    lock = locked()
    (environment.workspace / "dvc.lock").write_text(text_of(lock))
    values = {"overall/WAR": 0.5, "mafw/WAR": 0.5, "mafw/clips": 60.0}
    Server(environment).flow(lock, evaluate_erv={"tags": ON_GPU, "metrics": values})
    (there,) = own(gather(environment))
    (away,) = own(gather(replace(environment, mlflow_uri="http://127.0.0.1:9")))
    assert (list(there.figures), list(away.figures)) == (["WAR"], [])
    assert there.key == away.key


def test_a_result_without_its_lock_is_one_with_the_key_that_it_has_with_it(environment: Environment) -> None:
    lock, server = locked(), Server(environment)
    for _ in range(2):
        whole = server.flow(lock, kept=False, evaluate_erv={"tags": ON_GPU})
        server_of(environment).log_batch(whole, [Metric("erv/mafw/WAR", 0.5, now_ms(), 0)])
    (bare,) = own(gather(environment))
    assert "kept nowhere" in " ".join(bare.remarks)
    (environment.workspace / "dvc.lock").write_text(text_of(lock))
    (whole_one,) = own(gather(environment))
    assert whole_one.key == bare.key


def test_an_object_store_that_is_away_is_told_and_asked_once(environment: Environment) -> None:
    lock = locked()
    values = {"mafw/WAR": 0.5, "mafw/clips": 60.0}
    Server(environment).flow(lock, evaluate_erv={"metrics": values})
    started = time.monotonic()
    found = gather(replace(environment, s3_endpoint="http://127.0.0.1:9"))
    assert time.monotonic() - started < 60
    (remark,) = found.remarks
    assert "the object store can't be read" in remark
    assert "run the same command again" in remark
    assert own(found)[0].figures["WAR"].value == 0.5


def test_the_command_writes_the_page_and_prints_json(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Server(environment).flow(locked(), report={"artifacts": {"comparison.json": comparison().decode()}})
    monkeypatch.chdir(environment.workspace)
    for name, value in environment.variables().items():
        monkeypatch.setenv(name, value)
    for arguments, policies in ((["--no-published"], {"sft", "erv"}), (["--policy", "erv"], {"erv"})):
        with pytest.raises(SystemExit) as ended:
            main(["figures", "--json", *arguments])
        assert ended.value.code == 0
        found = json.loads(capsys.readouterr().out)
        assert {item["policy"] for item in found["results"]} == policies
    written = environment.workspace / "report"
    assert "ERV (+ explanation reward)" in (written / "by_setting.html").read_text()
    assert json.loads((written / "by_setting.json").read_text()) == found
