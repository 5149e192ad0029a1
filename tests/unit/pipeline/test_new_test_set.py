"""A new test set is tested on, and trains nothing again: asked of DVC itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import yaml

from erv.claims import CHANNELS
from erv.cues import ClipCues, write_cues
from erv.errors import DataError
from erv.manifest import ClipRow, read_manifest, read_table, write_manifest
from erv.prompts import Prompt
from erv.shards import Clip, ShardReader, ShardWriter
from erv.training_sets import (
    COLUMNS,
    Hashes,
    check_training_sets,
    hash_training_sets,
    training_rows,
    write_training_sets,
)
from tests.support.finished import finish

SPACE = """\
name: moods
labels:
  - {id: 0, name: awe, synonyms: [awed]}
  - {id: 1, name: joy, synonyms: [happy]}
maps:
  mafw: {joy: happiness}
"""
SPLITS = {"a": "train", "b": "test", "c": "train", "v": "validation", "z": "test"}


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


class DataSets:
    """Two data sets, mafw and moods, each with training clips, a validation and two test clips."""

    def __init__(self, folder: Path) -> None:
        self.manifests, self.shards, self.cues = (folder / name for name in ("manifest", "shards", "cues"))
        self.spaces = folder / "data/label_spaces"
        for place in (self.manifests, self.cues, self.spaces):
            place.mkdir(parents=True)
        (self.spaces / "moods.yaml").write_text(SPACE)
        self.written = folder / "training_sets.json"
        self.write("mafw")
        self.write("moods")

    def write(
        self,
        name: str,
        splits: Mapping[str, str] = SPLITS,
        *,
        shade: Mapping[str, int] = MappingProxyType({}),
        cue: str = "smile",
        **changed: str | None,
    ) -> None:
        rows = [
            ClipRow(
                clip, name, 1, split, "joy", "joy", None, None, "video", f"{clip}.mp4", 1, "0" * 64,
                f"list.txt#row{number}", f"split.txt#row{number}", None,
            )
            for number, (clip, split) in enumerate(sorted(splits.items()))
        ]  # fmt: skip
        rows[0] = replace(rows[0], **changed)  # type: ignore[arg-type]
        write_manifest(rows, self.manifests / f"{name}.parquet")
        shutil.rmtree(self.shards / name, ignore_errors=True)
        with ShardWriter(self.shards / name, clips_per_shard=2) as writer:
            for clip in sorted(splits):
                frames = np.full((2, 4, 4, 3), shade.get(clip, 7), np.uint8)
                writer.add(Clip(clip, frames, np.ones(8, np.int16), 16000))
        shown = {next(iter(CHANNELS)): frozenset({cue})}
        write_cues([ClipCues(clip, shown) for clip in splits], self.cues / f"{name}.parquet")

    def hashes(self, *names: str) -> Hashes:
        return hash_training_sets(self.manifests, self.shards, self.cues, names)

    def check(self, *names: str) -> Hashes:
        return check_training_sets(self.written, self.manifests, self.shards, self.cues, names)


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataSets:
    monkeypatch.chdir(tmp_path)
    return DataSets(tmp_path)


def test_the_hashes_are_of_training_sets_alone(sets: DataSets) -> None:
    trained = sets.hashes("mafw")
    assert trained["mafw"]["label_space"] is None
    write_training_sets(trained, sets.written)
    sets.write("moods", shade={"a": 1})
    assert sets.check("mafw") == trained
    with pytest.raises(
        DataError,
        match=r"^moods: rows of its training clips changed since .*; run `dvc repro leakage` again$",
    ):
        sets.check("mafw", "moods")


@pytest.mark.parametrize(
    "splits",
    [
        {"a": "train", "c": "train", "v": "validation"},
        {"a": "train", "b": "test", "c": "train", "v": "validation", "x": "test", "z": "test"},
        {"a": "train", "b": "validation", "c": "train", "z": "test"},
    ],
    ids=["fewer", "another", "swapped"],
)
def test_other_test_clips_change_nothing_that_training_reads(sets: DataSets, splits: dict[str, str]) -> None:
    """Fewer of them trained every policy again, since manifest and shards were hashed as a whole."""
    before = sets.hashes("mafw")
    manifest = (sets.manifests / "mafw.parquet").read_bytes()
    sets.write("mafw", splits, shade={"b": 1, "x": 2, "z": 3})
    assert (sets.manifests / "mafw.parquet").read_bytes() != manifest
    assert sets.hashes("mafw") == before


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"label": "awe"}, "rows"),
        ({"subtitle": "Stop!"}, "rows"),
        ({"splits": {"a": "test", "b": "test", "c": "train"}}, "rows"),
        ({"shade": {"a": 1}}, "shards"),
        ({"cue": "frown"}, "cues"),
    ],
)
def test_what_training_reads_changes_them(sets: DataSets, change: dict[str, Any], what: str) -> None:
    write_training_sets(sets.hashes("moods"), sets.written)
    sets.write("moods", **change)
    with pytest.raises(DataError, match=rf"^moods: {what} of its training clips changed"):
        sets.check("moods")


def test_a_label_space_changes_them(sets: DataSets) -> None:
    write_training_sets(sets.hashes("moods"), sets.written)
    (sets.spaces / "moods.yaml").write_text(f"{SPACE}# changed")
    with pytest.raises(DataError, match=r"^moods: label space of its training clips changed"):
        sets.check("moods")


def test_training_reads_no_other_column(sets: DataSets) -> None:
    """Or the hashes would miss a change of it."""
    from erv.training.grpo.grpo import build_rows

    rows = read_manifest(sets.manifests / "mafw.parquet")
    others = {item.name for item in fields(ClipRow)} - {*COLUMNS, "split"}
    elsewhere = [replace(row, **dict.fromkeys(others, "other")) for row in rows]  # type: ignore[arg-type]
    shards = {"mafw": ShardReader(sets.shards / "mafw")}
    prompt = Prompt("Said: {subtitle}")
    assert build_rows([elsewhere], shards, prompt) == build_rows([rows], shards, prompt)
    assert [row["clip_id"] for row in build_rows([rows], shards)] == ["a", "c"]
    assert [row["clip_id"] for row in training_rows(read_table(sets.manifests / "mafw.parquet"))] == [
        "a",
        "c",
    ]
