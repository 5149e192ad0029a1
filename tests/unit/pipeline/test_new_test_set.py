"""A new test set is tested on, and trains nothing again: asked of DVC itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from erv.errors import DataError
from erv.training_sets import check_training_sets, hash_training_sets, write_training_sets
from tests.support.finished import finish

SPACE = """\
name: moods
labels:
  - {id: 0, name: awe, synonyms: [awed]}
  - {id: 1, name: joy, synonyms: [happy]}
maps:
  mafw: {joy: happiness}
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finish(tmp_path_factory.mktemp("finished"))


def dvc(folder: Path, *words: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
    command = [sys.executable, "-m", "dvc", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.slow
def test_it_changes_no_training(workspace: Path) -> None:
    assert json.loads(dvc(workspace, "status", "--json")) == {}
    params = yaml.safe_load((workspace / "params.yaml").read_text())
    params["datasets"].append("moods")
    params["roles"]["test"].append("moods")
    params["sources"]["moods"] = "moods"
    params["ingest"]["readers"]["moods"] = {"reader": "table", "table": "clips.csv", "split": "test"}
    (workspace / "params.yaml").write_text(yaml.safe_dump(params))
    (workspace / "data/label_spaces/moods.yaml").write_text(SPACE)
    (workspace / "data/sources/moods.lock.json").write_text("{}")
    for output in ("manifest/moods.parquet", "checks/moods.json", "validation/moods.json"):
        (workspace / "data" / output).write_text("of moods")  # as if it were ingested and extracted
    (workspace / "data/shards/moods").mkdir()
    (workspace / "data/shards/moods/shard-00000.parquet").write_text("frames")
    changed = set(json.loads(dvc(workspace, "status", "--json")))
    planned = dvc(workspace, "repro", "--dry")
    runs = {line.split("'")[1] for line in planned.splitlines() if line.startswith("Running stage '")}
    steps = {f"{step}@moods" for step in ("ingest", "validate", "extract")}
    evaluated = {"evaluate@sft", "evaluate@r1_omni", "evaluate@erv", "grounding", "report"}
    assert changed == {*steps, "leakage", *evaluated, "register"}
    assert runs == {*steps, "leakage", *evaluated, "register"}, "no training, and no other data set"
    # A change in a data set that is trained on reaches grpo through the file.
    (workspace / "data/training_sets.json").write_text("changed")
    assert {"grpo@r1_omni", "grpo@erv"} <= set(json.loads(dvc(workspace, "status", "--json")))


def test_the_hashes_are_of_training_sets_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folders = ("manifest", "shards", "cues", "data/label_spaces")
    manifests, shards, cues, spaces = (tmp_path / name for name in folders)
    for folder in (manifests, cues, shards / "mafw", shards / "moods", spaces):
        folder.mkdir(parents=True)
    for name in ("mafw", "moods"):
        (manifests / f"{name}.parquet").write_text(name)
        (cues / f"{name}.parquet").write_text(name)
        (shards / name / "shard-00000.parquet").write_text(name)
    (spaces / "moods.yaml").write_text(SPACE)
    trained = hash_training_sets(manifests, shards, cues, ["mafw"])
    assert trained["mafw"]["label_space"] is None
    write_training_sets(trained, tmp_path / "training_sets.json")
    arguments = (tmp_path / "training_sets.json", manifests, shards, cues)
    (shards / "moods/shard-00000.parquet").write_text("other frames")
    assert check_training_sets(*arguments, ["mafw"]) == trained
    with pytest.raises(
        DataError, match=r"^moods: its manifest is not what .*; run `dvc repro leakage` again$"
    ):
        check_training_sets(*arguments, ["mafw", "moods"])
    write_training_sets(hash_training_sets(manifests, shards, cues, ["mafw", "moods"]), arguments[0])
    for path, what in (
        (manifests / "moods.parquet", "manifest"),
        (shards / "moods/shard-00000.parquet", "shards"),
        (cues / "moods.parquet", "cues"),
        (spaces / "moods.yaml", "label space"),
    ):
        before = path.read_text()
        path.write_text(f"{before} changed")
        with pytest.raises(DataError, match=f"^moods: its {what} is not what"):
            check_training_sets(*arguments, ["mafw", "moods"])
        path.write_text(before)
