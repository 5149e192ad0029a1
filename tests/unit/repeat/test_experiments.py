"""Repeats are experiments of DVC: queued, run in folders of their own, kept, and read back."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from erv.commands.repeat import command
from erv.environment import Environment
from erv.errors import EvaluationError
from erv.repeat.experiments import (
    enqueue,
    finished,
    forget,
    predictions_of,
    queued,
    read_comparison,
    run_queue,
)
from erv.repeat.parameters import digest, of_workspace
from erv.repeat.plan import Repeat
from erv.repeat.tables import tables
from tests.support.paths import ROOT

# The one stage of this pipeline: two policies on the clips of a fold, compared.
STAGE = """
import json, pathlib, sys
import pyarrow as pa, pyarrow.parquet as pq, yaml
from erv.evaluate.compare import compare

params = yaml.safe_load(open("params.yaml"))
seed, fold = params["seed"], params["ingest"]["fold"]
assert pathlib.Path("data/sources/a.lock.json").is_file(), "the pinned sources are not here"
assert seed != 13, "an unlucky seed"

def rows(right):
    return [
        {"dataset": "mafw", "clip_id": f"{fold}{clip:03d}", "split": "test", "label": "anger",
         "completion": f"<think>He shouts.</think><answer>{clip < right}</answer>",
         "predicted": "anger" if clip < right else "fear", "judged": "anger", "sentences": 1,
         "verdicts": [{"judge": "embedding", "outcome": "named", "emotion": "anger"}]}
        for clip in range(30)
    ]

found = {"r1_omni": rows(10), "erv": rows(20 + seed % 5)}
for policy, items in found.items():
    folder = pathlib.Path("eval") / policy
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(items), folder / "predictions.parquet")
    metrics = {"explains": True, "judges": {"embedding": {"worth": {"recall_low": 0.9}}}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
pathlib.Path("report").mkdir(exist_ok=True)
comparison = compare(found, samples=100, confidence=0.95, seed=seed)
pathlib.Path("report/comparison.json").write_text(json.dumps(comparison))
"""
PARAMS = "seed: 0\ningest:\n  fold: 1\nregister:\n  policy: erv\n"
PIPELINE = """
stages:
  report:
    cmd: {python} stage.py
    deps: [stage.py]
    params: [seed, ingest.fold]
    outs: [report/comparison.json, eval/erv/predictions.parquet, eval/r1_omni/predictions.parquet,
      eval/erv/metrics.json, eval/r1_omni/metrics.json]
"""


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    (tmp_path / "stage.py").write_text(STAGE)
    (tmp_path / "dvc.yaml").write_text(PIPELINE.format(python=sys.executable))
    (tmp_path / "params.yaml").write_text(PARAMS)
    for arguments in (
        ["git", "init", "--quiet"],
        ["git", "config", "user.email", "a@b.c"],
        ["git", "config", "user.name", "a"],
        [sys.executable, "-m", "dvc", "init", "--quiet"],
        ["git", "add", "."],
        ["git", "commit", "--quiet", "-m", "start"],
    ):
        subprocess.run(arguments, cwd=tmp_path, check=True)
    # Pinned by the user and not in git.
    (tmp_path / "data/sources").mkdir(parents=True)
    (tmp_path / "data/sources/a.lock.json").write_text("{}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    return Environment(workspace=tmp_path)


@pytest.mark.slow
def test_repeats_go_through_dvcs_queue_and_into_one_table(environment: Environment) -> None:
    workspace = environment.workspace
    assert finished(workspace) == {}
    with pytest.raises(EvaluationError, match="no such run of this commit is finished"):
        tables(workspace)
    parameters = digest(of_workspace(workspace))
    wanted = [Repeat(101, fold, parameters) for fold in (1, 2, 3, 4, 5)]
    unlucky = Repeat(13, 1, parameters)
    for repeat in [*wanted, unlucky]:
        enqueue(repeat, environment, ["report"])
    assert queued(workspace) == {*wanted, unlucky}
    run_queue(environment, jobs=2)
    done = finished(workspace)
    assert list(done) == wanted  # the unlucky one failed, the others are kept
    assert queued(workspace) == set()
    # The workspace itself is as it was.
    assert (workspace / "params.yaml").read_text() == PARAMS
    assert not (workspace / "report").exists()
    found = read_comparison(workspace, done[wanted[1]])
    assert found["policies"]["erv"]["overall"]["WAR"]["value"] == 0.7
    rows = predictions_of(workspace, done[wanted[1]], ["erv"])["erv"]
    assert {row["clip_id"][0] for row in rows} == {"2"}

    shown = "\n".join(tables(workspace, pooled=True))
    assert "5 runs (seeds 101; folds 1, 2, 3, 4, 5), overall" in shown
    assert "70.0 ± 0.0 (70.0 to 70.0)" in shown
    assert "+36.7 ± 0.0 (+36.7 to +36.7), better in 5 of 5" in shown
    assert "seed 101, the clips of all five folds pooled" in shown
    assert "| 150 " in shown

    forget(wanted[2], environment)
    assert wanted[2] not in finished(workspace)
    with pytest.raises(EvaluationError, match="fold 3 is missing"):
        tables(workspace, pooled=True)


def test_a_dry_run_says_what_would_run(
    tmp_path: Path, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    (environment.workspace / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.chdir(environment.workspace)
    result = CliRunner().invoke(command, ["run", "--seeds", "101-102", "--folds", "1,5", "--dry"])
    assert result.exit_code == 0, result.output
    parameters = digest(of_workspace(environment.workspace))
    assert result.output.splitlines() == [
        f"seed {seed}, fold {fold}: to run (repeat-s{seed}-f{fold}-{parameters})"
        for seed in (101, 102)
        for fold in (1, 5)
    ]
    assert queued(environment.workspace) == set()
