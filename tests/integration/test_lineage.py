"""`erv lineage` on a real registry and object store, mostly from a folder that never ran the pipeline."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from erv.cli import main
from erv.environment import Environment
from erv.files import md5_of_file
from erv.lineage.model_versions import ModelVersions
from erv.lineage.published import Published, kept_source
from erv.lineage.served import Place
from erv.lineage.withdrawal import LIST, WithdrawalGate
from erv.settings import load_settings
from erv.storage.store import Store, open_store
from erv.tracking.lock_entries import client_of
from erv.tracking.origin import who
from tests.conftest import ROOT
from tests.support.lineage_pipeline import BASE, NAME, PIPELINE, LineagePipeline

pytestmark = pytest.mark.integration

SCHEMAS = ROOT / "src/erv/lineage/schemas"
VERSION_SCHEMA = ROOT / "src/erv/register/schemas/version.json"


FLOW = "0199f2a4-5b0e-7c33-9d5e-3a8b1f6c2d47"  # whose run version 1 was published by
EVENTS = "events.jsonl"


@pytest.fixture(scope="module")
def scratch(stack: Environment, tmp_path_factory: pytest.TempPathFactory) -> LineagePipeline:
    """Two versions: the second one learned from t4 instead of t1, which is no longer in the workspace."""
    client = client_of(stack)
    for model in client.search_registered_models():  # of other tests: answers are over all versions
        client.delete_registered_model(model.name)
    pipeline = LineagePipeline(tmp_path_factory.mktemp("lineage"), stack)
    pipeline.run("t1")
    told = {"TYPE": "file", "LOG_FILE_PATH": str(pipeline.folder / EVENTS), "APPEND": "true"}
    with pytest.MonkeyPatch.context() as environment:  # of a stage or command below the flow
        environment.setenv("ERV_FLOW_RUN_ID", FLOW)
        for name, value in told.items():
            environment.setenv(f"OPENLINEAGE__TRANSPORT__{name}", value)
        assert pipeline.publish().version == "1"
    (pipeline.folder / "dvc.yaml").write_text(PIPELINE + "# changed\n")
    pipeline.run("t4", policy="second")
    assert pipeline.publish().version == "2"
    return pipeline


@pytest.fixture
def store(scratch: LineagePipeline) -> Store:
    return open_store(scratch.environment)


@dataclass(frozen=True)
class Said:
    returncode: int
    stdout: str
    stderr: str


class Elsewhere:
    """An empty folder of a machine that knows the servers and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def lineage(self, *arguments: str) -> Said:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main(["lineage", *arguments])
            except SystemExit as end:
                return Said(int(end.code or 0), out.getvalue(), err.getvalue())
        raise AssertionError("a command ends its process")

    def has_parameters(self) -> None:
        """From then on it has a `params.yaml`, which says of which model a number is."""
        shutil.copy(ROOT / "params.yaml", self.folder)

    def document(self, *arguments: str, schema: str = "lineage", code: int = 0) -> dict[str, Any]:
        result = self.lineage(*arguments, "--json")
        assert result.returncode == code, result.stdout[-2000:] + result.stderr
        found: dict[str, Any] = json.loads(result.stdout)
        jsonschema.validate(found, json.loads((SCHEMAS / f"{schema}.json").read_text()))
        return found


@pytest.fixture
def elsewhere(scratch: LineagePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name, value in scratch.environment.variables().items():
        monkeypatch.setenv(name, value)
    return Elsewhere(folder)


def facts(document: dict[str, Any], number: str) -> list[str]:
    children = document["tree"]["children"]
    return next(child["facts"] for child in children if child["values"]["version"] == number)


@pytest.mark.parametrize(
    ("clip", "first"),
    [
        ("mafw/t1", ["learned from it (grpo@erv)"]),
        ("mafw/t2", ["not learned (grpo@erv): it, excluded: same content as mafw/00001 (test, u)"]),
        ("mafw/t3", ["not learned (grpo@erv): it, in quarantine: no sound"]),
        ("mafw/v1", ["did not use it"]),
        ("mafw/00001", ["was tested on it (evaluate@erv)"]),
        (
            "reasoning/r1",
            ["learned from it (base)", "learned from it (sft)", "learned from it (train_erv)"],
        ),
        (
            "r2",
            ["was tuned on it (sft)", "was tuned on it (train_erv)", "was tested on it (train_erv)"],
        ),
    ],
)
def test_roles_of_a_clip(elsewhere: Elsewhere, clip: str, first: list[str]) -> None:
    said = facts(elsewhere.document(clip), "1")
    assert [fact for fact in said if not fact.startswith("not recorded")] == first


def test_each_version_answers_from_its_own_records(
    scratch: LineagePipeline, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert facts(elsewhere.document("mafw/t4"), "1")[0] == "did not use it"
    assert facts(elsewhere.document("mafw/t4"), "2")[0] == "learned from it (grpo@erv)"
    # t1 is gone from the workspace's manifest, not from what version 1 was made from.
    monkeypatch.chdir(scratch.folder)
    here = elsewhere.document("mafw/t1")
    assert facts(here, "1")[0] == "learned from it (grpo@erv)"
    assert facts(here, "2")[0] == "did not use it"


def test_withdrawn_clips(elsewhere: Elsewhere, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("mafw/t1\n00001\n\nmafw/t2\nmafw/never\nsomewhere/else\nmafw/t1\n")
    found = elsewhere.document("--withdrawn", str(listed), schema="withdrawn", code=4)
    assert found["unknown"] == ["mafw/never", "somewhere/else"]
    assert found["clips"] == ["mafw/00001", "mafw/t1", "mafw/t2"]
    one, two = found["versions"]
    tested = {"role": "tested", "stage": "evaluate@erv", "clips": ["mafw/00001"]}
    assert one["used"] == [{"role": "learned", "stage": "grpo@erv", "clips": ["mafw/t1"]}, tested]
    assert two["used"] == [tested]
    assert [item["clip"] for item in one["left_out"]] == ["mafw/t2"]
    text = elsewhere.lineage("--withdrawn", str(listed)).stdout
    assert "unknown: 2: mafw/never, somewhere/else" in text
    assert "2 of 2 versions used 2 of 3 clips; 2 of 5 ids are unknown" in text


@pytest.mark.parametrize(("content", "code"), [("mafw/t1\n", 3), ("mafw/t2\n", 0), ("mafw/t0\n", 4)])
def test_exit_codes_of_withdrawn_clips(elsewhere: Elsewhere, tmp_path: Path, content: str, code: int) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text(content)
    assert elsewhere.lineage("--withdrawn", str(listed)).returncode == code


def test_a_version_that_learned_from_a_withdrawn_clip_becomes_no_champion(
    scratch: LineagePipeline, elsewhere: Elsewhere
) -> None:
    elsewhere.has_parameters()
    (elsewhere.folder / "data").mkdir()
    (elsewhere.folder / LIST).write_text("mafw/t1\n")
    gate = WithdrawalGate(replace(scratch.environment, workspace=elsewhere.folder), load_settings())
    assert gate("2") == ()
    assert [verdict.text() for verdict in gate("1")] == [
        "fail: withdrawn clips: data/withdrawn.txt has clips that it learned from mafw/t1 (grpo@erv)"
    ]


def test_a_lost_manifest_makes_the_answer_incomplete(
    scratch: LineagePipeline, store: Store, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    md5 = scratch.md5_of("data/manifest/mafw.parquet")
    uri = f"s3://{scratch.environment.dvc_bucket}/files/md5/{md5[:2]}/{md5[2:]}"
    listed = tmp_path / "list.txt"
    listed.write_text("mafw/t1\n")
    content = store.read(uri)
    try:
        store.delete(uri)
        found = elsewhere.document("--withdrawn", str(listed), schema="withdrawn", code=4)
    finally:
        store.write(content, uri)
    assert (
        f"grpo@erv: {uri}: missing; run `dvc push` in a workspace that has it"
        in found["versions"][1]["unread"]
    )
    assert found["versions"][0]["unread"] == []


@pytest.mark.parametrize(
    "target", [f"models:/{NAME}/2", f"models:/{NAME}@challenger", f"{NAME}/2", "2", "challenger"]
)
def test_names_of_a_version(scratch: LineagePipeline, elsewhere: Elsewhere, target: str) -> None:
    if NAME not in target:
        elsewhere.has_parameters()
    tree = elsewhere.document(target)["tree"]
    assert tree["kind"] == "version"
    assert tree["values"]["version"] == "2"
    assert tree["values"]["started_by"] == who(scratch.folder)
    assert tree["values"]["dirty"] is True  # dvc.yaml was changed after the commit
    used = {(item["role"], item["stage"], item["clips"]) for item in tree["values"]["roles"]}
    assert ("learned", "grpo@erv", 1) in used
    assert ("tested", "evaluate@erv", 60) in used


@pytest.mark.parametrize(
    "target", [f"{NAME}/9", f"models:/{NAME}/9", f"{NAME}@nobody", "9", "models:/other/1"]
)
def test_a_version_that_does_not_exist_is_nothing_else(elsewhere: Elsewhere, target: str) -> None:
    if target.isdigit():
        elsewhere.has_parameters()
    result = elsewhere.lineage(target)
    assert result.returncode == 1
    assert "has no version or alias" in result.stderr
    assert result.stdout == ""


def test_a_number_of_several_models_is_refused(elsewhere: Elsewhere, scratch: LineagePipeline) -> None:
    client, other = client_of(scratch.environment), f"other-{elsewhere.folder.parent.name}"
    client.create_registered_model(other)
    try:
        result = elsewhere.lineage("2")
    finally:
        client.delete_registered_model(other)
    assert result.returncode == 1
    assert "'2': of which model? there is no params.yaml here" in result.stderr


def test_a_number_is_a_version_even_if_a_clip_has_that_name(elsewhere: Elsewhere) -> None:
    elsewhere.has_parameters()
    result = elsewhere.lineage("7")
    assert result.returncode == 1
    assert "has no version or alias '7'" in result.stderr
    assert "for the clip say DATASET/7" in result.stderr
    assert elsewhere.lineage("mafw/7").stdout.startswith("clip mafw/7\n")


def test_a_data_set_a_commit_a_run_and_a_deleted_one(scratch: LineagePipeline, elsewhere: Elsewhere) -> None:
    tree = elsewhere.document("mafw")["tree"]
    assert tree["kind"] == "data set"
    assert {"role": "learned", "stage": "grpo@erv", "dataset": "mafw", "clips": 1} in tree["children"][0][
        "values"
    ]["used"]
    version = elsewhere.document(f"{NAME}/1")["tree"]["values"]
    run_id, commit_id = version["publish_run"], version["commit"]
    assert len(commit_id) == 40
    assert version["dirty"] is False
    for target in (commit_id, commit_id[:10]):
        tree = elsewhere.document(target)["tree"]
        assert tree["kind"] == "commit"
        assert run_id in tree["values"]["mlflow_runs"]
    client = client_of(scratch.environment)
    try:
        client.delete_run(run_id)
        tree = elsewhere.document(run_id)["tree"]
        assert tree["title"].endswith("publish, FINISHED, deleted")
        assert tree["values"]["started_by"] == who(scratch.folder)
        assert run_id in elsewhere.document(commit_id)["tree"]["values"]["mlflow_runs"]
        assert facts(elsewhere.document("mafw/t1"), "1")[0] == "learned from it (grpo@erv)"
    finally:
        client.restore_run(run_id)


def test_a_number_may_be_the_beginning_of_a_commit(
    scratch: LineagePipeline, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was called a version that doesn't exist."""
    elsewhere.has_parameters()
    client, environment = client_of(scratch.environment), scratch.environment
    experiment = client.get_experiment_by_name(environment.mlflow_experiment).experiment_id
    tags = {"erv.git_commit": f"1234567{'a' * 33}", "erv.git_dirty": "false"}
    run_id = client.create_run(experiment, tags=tags).info.run_id
    client.set_terminated(run_id)
    try:
        tree = elsewhere.document("1234567")["tree"]
        assert (tree["kind"], tree["values"]["mlflow_runs"]) == ("commit", [run_id])
        with monkeypatch.context() as patch:  # the registry counts versions itself, so none can be made
            version = client.get_model_version(NAME, "1")
            patch.setattr(ModelVersions, "find", lambda *_: version)
            both = elsewhere.lineage("1234567")
    finally:
        client.delete_run(run_id)
    assert both.returncode == 1
    assert f"is a version ({NAME}/1234567), and the beginning of the git commit 1234567a" in both.stderr
    neither = elsewhere.lineage("7654321")
    assert neither.returncode == 1
    assert f"{NAME} has no version or alias '7654321'" in neither.stderr
    assert "no run is recorded at a git commit 7654321... either" in neither.stderr


def test_a_run_that_kept_nothing_is_not_given_what_the_workspace_has(
    scratch: LineagePipeline, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, name = client_of(scratch.environment), scratch.environment.mlflow_experiment
    experiment = client.get_experiment_by_name(name).experiment_id
    unreadable = client.create_experiment(f"{name}-unreadable", "mlflow-artifacts:/1/../1")
    early, finished, imported, lost, hidden = runs = [
        client.create_run(place, tags={"erv.kind": kind}).info.run_id
        for place, kind in [
            (experiment, "flow"),
            (experiment, "flow"),
            (experiment, "publish"),
            (experiment, "publish"),
            (unreadable, "publish"),
        ]
    ]
    part = client.create_run(experiment, tags={"mlflow.parentRunId": early}, run_name="ingest").info.run_id
    client.set_terminated(early, "FAILED")
    for run_id in (finished, imported, lost, hidden):
        client.set_terminated(run_id)
    tags = {"erv.external": "true", "erv.bundle_hash": "0", "erv.publish_run": imported}
    version = client.create_model_version(NAME, f"runs:/{imported}", imported, tags=tags).version
    monkeypatch.chdir(scratch.folder)  # whose dvc.lock has all stages
    try:
        trees = {run: elsewhere.document(run, code=4 * (run in (finished, lost)))["tree"] for run in runs}
    finally:
        client.delete_model_version(NAME, version)
        for run_id in (*runs, part):
            client.delete_run(run_id)
    assert not [node for tree in trees.values() for node in tree["children"] if node["kind"] == "stage"]
    assert [child["values"]["run_id"] for child in trees[early]["children"]] == [part]
    for run_id, ok in ((early, None), (finished, False), (lost, False)):
        assert trees[run_id]["links"] == [{"what": "dvc.lock", "ok": ok, "detail": "not kept with this run"}]
    assert trees[imported]["links"] == []
    assert "external: imported from a folder" in " ".join(trees[imported]["facts"])
    (link,) = trees[hidden]["links"]
    assert link["ok"] is None
    assert link["detail"].startswith("can't be read now: ")


def test_a_source_lock_counts_only_with_the_hash_that_was_read(
    scratch: LineagePipeline, tmp_path: Path
) -> None:
    """A base that was pinned anew before the publication was taken for the one that was trained from."""
    client, environment = (
        client_of(scratch.environment),
        dataclasses.replace(scratch.environment, workspace=tmp_path),
    )
    experiment = client.get_experiment_by_name(environment.mlflow_experiment).experiment_id
    right = (scratch.folder / BASE).read_bytes()
    md5 = md5_of_file(scratch.folder / BASE)
    repinned, without, kept = runs = [client.create_run(experiment).info.run_id for _ in range(3)]
    for run_id, content in ((repinned, right + b"\n"), (kept, right)):
        client.log_artifact(run_id, str(_file(tmp_path, content)), "pipeline")
    lock = {"sft": {"deps": [{"path": BASE, "md5": md5}]}}
    found = [
        Published("m", str(number), (), {"erv.publish_run": run_id}, lock)
        for number, run_id in enumerate([repinned, without, "0" * 32, kept])
    ]
    try:
        assert kept_source(environment, found[:3], md5, BASE) is None
        assert kept_source(environment, found, md5, BASE) == right
    finally:
        for run_id in runs:
            client.delete_run(run_id)


def _file(folder: Path, content: bytes) -> Path:
    path = folder / Path(BASE).name
    path.write_bytes(content)
    return path


def test_a_flow_run_and_what_it_published(elsewhere: Elsewhere) -> None:
    version = elsewhere.document(f"{NAME}/1")["tree"]["values"]
    assert version["prefect_flow_run"] == FLOW
    tree = elsewhere.document(FLOW)["tree"]
    assert (tree["kind"], tree["values"]["prefect_flow_run"]) == ("flow", FLOW)
    assert tree["values"]["mlflow_runs"] == [version["publish_run"]]
    assert elsewhere.document(f"{NAME}/2")["tree"]["values"]["prefect_flow_run"] is None


def test_a_publication_is_told_to_openlineage_below_its_flow(scratch: LineagePipeline) -> None:
    events = [json.loads(line) for line in (scratch.folder / EVENTS).read_text().splitlines()]
    assert [(event["job"]["name"], event["eventType"]) for event in events] == [
        ("publish", "START"),
        ("publish", "COMPLETE"),
    ]
    for event in events:
        assert event["run"]["facets"]["parent"]["run"]["runId"] == FLOW
        assert [item["name"] for item in event["outputs"]] == [f"models:/{NAME}/1"]
        (read,) = event["inputs"]
        assert read["name"] == "models/candidate"
        assert re.fullmatch(r"[0-9a-f]{32}\.dir", read["facets"]["version"]["datasetVersion"])


def test_an_output_by_its_hash(scratch: LineagePipeline, elsewhere: Elsewhere) -> None:
    md5 = scratch.md5_of("models/policy/sft")
    outputs = elsewhere.document(md5)["tree"]["children"]  # this pipeline's policies are equal
    (output,) = (one for one in outputs if one["values"]["path"] == "models/policy/sft")
    assert output["title"] == f"models/policy/sft  md5 {md5}"
    assert f"in {NAME} version 2" in output["facts"]
    stage = output["children"][0]["values"]
    assert stage["parameters"]["sft.max_steps"] == 400


@pytest.mark.parametrize("target", ["nonsense", "0" * 32, "a" * 40, "00000000-0000-4000-8000-000000000000"])
def test_nothing_of_that_name(elsewhere: Elsewhere, target: str) -> None:
    result = elsewhere.lineage(target)
    assert result.returncode == 1
    assert "error: " in result.stderr
    assert target in result.stderr


def test_everything_of_a_version_verifies_on_a_machine_that_never_ran_the_pipeline(
    scratch: LineagePipeline, tmp_path: Path
) -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("ERV_")}
    result = subprocess.run(
        [sys.executable, "-c", "from erv.cli import main; main()", "lineage", f"{NAME}/1", "--verify"],
        cwd=tmp_path,
        env={**plain, **scratch.environment.variables(), "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "code included, as registered" in result.stdout
    assert "read in their pinned versions, hashes equal" in result.stdout  # the files of the base
    assert "0 broken, 0 not verifiable from here" in result.stdout


@pytest.fixture
def place(scratch: LineagePipeline) -> Place:
    client = client_of(scratch.environment)
    return Place(scratch.environment, client, client.get_model_version(NAME, "1"))


def stored(place: Place, path: str) -> str:
    """Where the object store has a file of the version."""
    return place.of(path).partition("(")[2].removesuffix(")")


FAULTS = {
    "code/erv/answering/predictor.py": "changed since it was registered",
    "code/erv/register/serving_guard.py": "missing",
    "code/erv/sitecustomize.py": "added since it was registered",
    "MLmodel": "changed since it was registered",
    "artifacts/candidate/policy/config.json": "changed since it was registered",
}


def test_what_a_served_model_executes_is_verified(elsewhere: Elsewhere, store: Store, place: Place) -> None:
    uris = {path: stored(place, path) for path in FAULTS}
    before = {uri: store.read(uri) if store.exists(uri) else None for uri in uris.values()}
    try:
        for path, fault in FAULTS.items():
            if fault == "missing":
                store.delete(uris[path])
            else:
                store.write((before[uris[path]] or b"") + b"\n", uris[path])
        result = elsewhere.lineage(f"{NAME}/1", "--verify")
    finally:
        restore(store, before)
    assert result.returncode == 4, result.stdout
    lines = [line for line in result.stdout.splitlines() if "BROKEN: served files" in line]
    assert len(lines) == len(FAULTS)
    for path, fault in FAULTS.items():
        (line,) = [line for line in lines if f"{place.uri}/{path} " in line]
        assert uris[path] in line
        assert fault in line
        assert "erv rollback" in line


def test_the_record_itself_is_verified(elsewhere: Elsewhere, store: Store, place: Place) -> None:
    """Whoever changes the code and its digest alike is found out by the registry."""
    uri = stored(place, "lineage.json")
    before = {uri: store.read(uri)}
    try:
        store.write(before[uri].replace(b'"model"', b'"Model"'), uri)
        result = elsewhere.lineage(f"{NAME}/1", "--verify")
    finally:
        restore(store, before)
    assert result.returncode == 4, result.stdout
    assert f"{place.uri}/lineage.json ({uri}): changed, expected sha256" in result.stdout


def restore(store: Store, before: dict[str, bytes | None]) -> None:
    for uri, content in before.items():
        store.delete(uri) if content is None else store.write(content, uri)


def test_the_broken_copy_of_a_bundle_is_named(elsewhere: Elsewhere, store: Store, place: Place) -> None:
    uri = stored(place, "artifacts/candidate/card.md")
    before = store.read(uri)
    try:
        store.write(b"better than it is", uri)
        result = elsewhere.lineage(f"{NAME}/1")
    finally:
        store.write(before, uri)
    assert result.returncode == 4
    line = next(line for line in result.stdout.splitlines() if "BROKEN: bundle" in line)
    assert f"{place.uri}/artifacts/candidate" in line
    assert "card.md does not match bundle.json" in line
    assert "dvc checkout" not in line


def test_what_was_recorded_with_a_version(scratch: LineagePipeline, store: Store, place: Place) -> None:
    document = json.loads(store.read(stored(place, "lineage.json")))
    jsonschema.validate(document, json.loads(VERSION_SCHEMA.read_text()))
    assert document["model"] == NAME
    assert document["started_by"] == who(scratch.folder)
    assert document["stages"]["grpo@erv"]["params"]["params.yaml"]
    assert "code/erv/register/serving_model.py" in document["files"]
    assert "artifacts/candidate/policy/config.json" in document["files"]


def test_the_page(elsewhere: Elsewhere) -> None:
    result = elsewhere.lineage(f"{NAME}/2", "--html", "graph.html")
    assert result.returncode == 0, result.stdout + result.stderr
    text = (elsewhere.folder / "graph.html").read_text()
    for word in ("grpo@erv", "ingest@mafw", "sft.max_steps", "learned from 1 clip of mafw in grpo@erv"):
        assert word in text
    addresses = set(re.findall(r"https?://[^\s\"'<]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}
