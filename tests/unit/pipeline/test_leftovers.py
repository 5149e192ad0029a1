"""What earlier runs left is moved out of the way, and is no ancestor of anything."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from erv.pipeline import of_these_stages, read_stages, set_aside
from erv.pipeline.leftovers import leftovers

PIPELINE = """
stages:
  ingest:
    matrix: {dataset: "${datasets}"}
    cmd: python ingest.py ${item.dataset}
    outs: ["data/manifest/${item.dataset}.parquet"]
    plots:
      - data/plots/${item.dataset}/balance.csv: {x: a, y: b}
  sft:
    cmd: python sft.py
    deps: [data/manifest/mafw.parquet]
    outs: [models/sft]
  grpo:
    matrix: {variant: "${compare.train}"}
    cmd: python grpo.py ${item.variant}
    deps: [data/manifest, models/sft]
    outs: ["models/${item.variant}"]
  evaluate:
    matrix: {policy: "${compare.policies}"}
    cmd: python evaluate.py ${item.policy}
    deps: ["models/${item.policy}"]
    outs: ["eval/${item.policy}/predictions.parquet"]
    metrics: ["eval/${item.policy}/metrics.json"]
  report:
    cmd: python report.py
    deps: [eval, data/plots]
    outs: [report.html]
"""


def names(datasets: list[str], train: list[str]) -> dict[str, Any]:
    return {"datasets": datasets, "compare": {"train": train, "policies": ["sft", *train]}}


def write(folder: Path, path: str) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(path)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """All outputs of a run with two data sets and two variants."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(names(["mafw", "dfew"], ["erv", "r1_omni"])))
    for dataset in ("mafw", "dfew"):
        write(tmp_path, f"data/manifest/{dataset}.parquet")
        write(tmp_path, f"data/plots/{dataset}/balance.csv")
    for policy in ("sft", "erv", "r1_omni"):
        write(tmp_path, f"models/{policy}/weights")
        write(tmp_path, f"eval/{policy}/predictions.parquet")
        write(tmp_path, f"eval/{policy}/metrics.json")
    write(tmp_path, "report.html")
    # What is nobody's output: it stays.
    for path in ("data/manifest/.gitignore", "data/manifest/notes.md", "models/mine/weights", "eval/README"):
        write(tmp_path, path)
    return tmp_path


def lock_of(folder: Path) -> dict[str, Any]:
    return {
        stage.name: {
            "deps": [{"path": path} for path in stage.dependencies],
            "outs": [{"path": path} for path in stage.outputs],
        }
        for stage in read_stages(folder)
    }


def files(folder: Path) -> set[str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix() for path in found}
    return {name for name in names if not name.startswith((".git/", ".dvc/"))}


def test_nothing_is_moved_while_everything_is_asked_for(workspace: Path) -> None:
    before = files(workspace)
    assert set_aside(read_stages(workspace), lock_of(workspace), workspace) == ()
    assert files(workspace) == before


@pytest.mark.parametrize("locked", [True, False], ids=["locked", "lock lost"])
def test_what_is_no_longer_asked_for_is_set_aside(workspace: Path, locked: bool) -> None:
    lock, before = lock_of(workspace) if locked else {}, files(workspace)
    (workspace / "params.yaml").write_text(yaml.safe_dump(names(["mafw"], ["erv"])))
    moved = set_aside(read_stages(workspace), lock, workspace)
    gone = {
        "data/manifest/dfew.parquet",
        "data/plots/dfew/balance.csv",
        "eval/r1_omni/metrics.json",
        "eval/r1_omni/predictions.parquet",
        # Nothing reads models as a whole, so only the lock can say what it is.
        *(["models/r1_omni/weights"] if locked else []),
    }
    assert {path for path in before if not (workspace / path).exists()} == gone
    (stamp,) = (workspace / ".erv/set-aside").iterdir()
    assert files(stamp) == gone
    assert {path.parts[:2] for path in moved} == {(".erv", "set-aside")}
    assert not (workspace / "eval/r1_omni").exists()
    assert leftovers(read_stages(workspace), lock, workspace) == []


def test_what_another_stage_writes_now_stays(workspace: Path) -> None:
    lock = lock_of(workspace) | {"old": {"outs": [{"path": "eval"}, {"path": "models/sft/weights"}]}}
    assert leftovers(read_stages(workspace), lock, workspace) == []


def test_the_lineage_knows_only_stages_that_there_are(workspace: Path) -> None:
    lock = lock_of(workspace)
    assert of_these_stages(lock, workspace) == lock
    (workspace / "params.yaml").write_text(yaml.safe_dump(names(["mafw"], ["erv"])))
    found = set(of_these_stages(lock, workspace))
    assert found == {"ingest@mafw", "sft", "grpo@erv", "evaluate@sft", "evaluate@erv", "report"}
    assert found == {stage.name for stage in read_stages(workspace)}
    (workspace / "params.yaml").unlink()
    assert of_these_stages(lock, workspace) == lock
