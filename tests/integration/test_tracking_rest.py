"""Calls to MLflow's REST API leave what MLflow's own client leaves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Param, RunTag
from mlflow.entities import Metric as MlflowMetric

from erv.environment import Environment
from erv.tracking.delivery import Delivery
from erv.tracking.lock_entries import client_of
from erv.tracking.rest import Metric, Refused, Rest

pytestmark = pytest.mark.integration

NOW = int(time.time() * 1000)
TAGS = {"kind": "v", "mit Umlaut ä": "ü" * 100}
POINTS = [
    ("loss", 1.5, NOW, 1),
    ("loss", float("nan"), NOW + 1, 2),
    ("up", float("inf"), NOW, 0),
    ("down", float("-inf"), NOW, 0),
    ("large", 1e300, NOW, 7),
]
PARAMS = {"rate": "1e-5", "long": "x" * 5900, "empty": ""}
SOURCE = '{"uri": "data/manifest/mafw.parquet"}'


@pytest.fixture
def client(stack: Environment) -> MlflowClient:
    return client_of(stack)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "docs/below").mkdir(parents=True)
    (tmp_path / "docs/a b ä.txt").write_text("ä")
    (tmp_path / "docs/below/page.html").write_text("<p>")
    (tmp_path / "empty.json").write_text("")
    return tmp_path


def everything(client: MlflowClient, run_id: str) -> dict[str, Any]:
    """All that MLflow knows of a run."""

    def files(path: str | None = None) -> Iterator[tuple[str, int]]:
        for item in client.list_artifacts(run_id, path):
            if item.is_dir:
                yield from files(item.path)
            else:
                yield item.path, item.file_size

    run = client.get_run(run_id)
    keys = {point[0] for point in POINTS}
    histories = {key: client.get_metric_history(run_id, key) for key in sorted(keys)}
    return {
        "run": repr(run.to_dictionary()).replace(run_id, "ID"),
        "inputs": repr(run.inputs).replace(run_id, "ID"),
        "curves": {k: repr([(p.value, p.timestamp, p.step) for p in h]) for k, h in histories.items()},
        "files": sorted(files()),
    }


def test_a_run_is_the_same_as_that_of_mlflows_client(
    stack: Environment, client: MlflowClient, folder: Path
) -> None:
    rest = Rest(stack)
    assert rest.experiment_id("same") is None
    experiment = rest.create_experiment("same")
    assert rest.experiment_id("same") == experiment == client.get_experiment_by_name("same").experiment_id

    theirs = client.create_run(experiment, NOW, TAGS, "grpo@erv").info.run_id
    client.log_batch(theirs, metrics=[MlflowMetric(*point) for point in POINTS])
    client.log_batch(theirs, params=[Param(*item) for item in PARAMS.items()])
    client.log_batch(theirs, tags=[RunTag("later", "1")])
    dataset = Dataset("mafw", "abc", "local", SOURCE)
    client.log_inputs(theirs, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
    client.log_artifacts(theirs, str(folder / "docs"), "kept/here")
    client.log_artifact(theirs, str(folder / "empty.json"))
    client.log_text(theirs, "text ä", "deep/er/note.txt")
    client.set_terminated(theirs, "FINISHED", NOW + 5)

    ours = rest.create_run(experiment, NOW, TAGS, "grpo@erv").info.run_id
    rest.log_batch(ours, metrics=[Metric(*point) for point in POINTS])
    rest.log_batch(ours, params=PARAMS)
    rest.log_batch(ours, tags={"later": "1"})
    rest.log_input(ours, "mafw", "abc", SOURCE, {"mlflow.data.context": "training"})
    rest.log_artifact(ours, folder / "docs", "kept/here")
    rest.log_artifact(ours, folder / "empty.json")
    rest.log_text(ours, "text ä", "deep/er/note.txt")
    rest.end_run(ours, "FINISHED", NOW + 5)

    assert everything(client, ours) == everything(client, theirs)
    read, known = rest.get_run(ours), client.get_run(ours)
    assert (read.info.status, read.info.run_name) == ("FINISHED", "grpo@erv")
    assert (dict(read.data.params), dict(read.data.tags)) == (known.data.params, known.data.tags)
    found = rest.search_runs(experiment, "tags.kind = 'v'", newest_first=True)
    assert {run.info.run_id for run in found} == {ours, theirs}
    assert len(rest.search_runs(experiment, "tags.kind = 'v'", limit=1)) == 1


def test_refusals_have_mlflows_codes(stack: Environment) -> None:
    rest = Rest(stack)
    with pytest.raises(Refused, match="not found") as caught:
        rest.get_run("0" * 32)
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    with pytest.raises(Refused) as caught:
        Rest(replace(stack, mlflow_token="wrong")).get_run("0" * 32)
    assert caught.value.error_code == "UNAUTHENTICATED"
    with pytest.raises(OSError, match="Max retries exceeded") as away:
        Rest(replace(stack, mlflow_uri="http://127.0.0.1:9")).get_run("0" * 32)
    assert not isinstance(away.value, Refused)


def test_a_store_that_the_server_does_not_serve_is_left_to_mlflow(
    stack: Environment, client: MlflowClient, folder: Path
) -> None:
    """Its clients write there themselves: to a bucket, or to a folder as here."""
    experiment = client.create_experiment("elsewhere", artifact_location=str(folder / "store"))
    rest = Rest(stack)
    run_id = rest.create_run(experiment, NOW, {}, "sft").info.run_id
    events = [
        {"kind": "artifact", "path": str(folder / "docs"), "folder": "docs"},
        {"kind": "text", "text": "hello", "name": "notes/hello.txt"},
    ]
    assert sum(Delivery(stack).deliver(run_id, events)) == len(events)
    stored = folder / "store" / run_id / "artifacts"
    assert (stored / "docs/below/page.html").read_text() == "<p>"
    assert (stored / "notes/hello.txt").read_text() == "hello"
