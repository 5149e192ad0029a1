"""Tables of finished repeats: arms that don't explain, the candidate, and parameters that changed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from erv.commands.repeat import command
from erv.errors import EvaluationError
from erv.evaluate.compare import compare
from erv.repeat.parameters import digest, of_workspace
from erv.repeat.plan import Repeat
from erv.repeat.tables import tables
from tests.support.paths import ROOT

PARAMS = "seed: 0\ningest: {fold: 1}\nregister: {policy: erv}\ngrpo: {beta: 0.04}\n"
WORTH = {"embedding": {"recall_low": 0.9}, "lexical": {"recall_low": 0.5}}
RIGHT = {"sft": 3, "erv": 6, "direct": 2}  # of ten clips; the arm stands last


def git(workspace: Path, *arguments: str) -> str:
    result = subprocess.run(
        ["git", *arguments], cwd=workspace, check=True, capture_output=True, text=True, encoding="utf-8"
    )
    return result.stdout.strip()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    git(tmp_path, "config", "user.email", "a@b.c")
    git(tmp_path, "config", "user.name", "a")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], cwd=tmp_path, check=True)
    (tmp_path / "params.yaml").write_text(PARAMS)
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "start")
    return tmp_path


def rows(policy: str, fold: int) -> list[dict[str, Any]]:
    heard = None if policy == "direct" else "anger"
    return [
        {
            "dataset": "mafw",
            "clip_id": f"{fold}{clip:03d}",
            "split": "test",
            "label": "anger",
            "completion": f"<think>{heard or ''}</think><answer>{policy} {clip}</answer>",
            "predicted": "anger" if clip < RIGHT[policy] else "fear",
            "judged": heard,
            "sentences": 1,
            "verdicts": [
                {"judge": "embedding", "outcome": "named" if heard else "silent", "emotion": heard},
                {"judge": "lexical", "outcome": "silent", "emotion": None},
            ],
        }
        for clip in range(10)
    ]


def finish(workspace: Path, seed: int, fold: int, name: str | None = None) -> None:
    """Records an experiment as DVC keeps it: a commit with parameters and results, under `refs/exps`."""
    name = name or Repeat(seed, fold, digest(of_workspace(workspace))).name
    baseline = git(workspace, "rev-parse", "main")
    edited = (workspace / "params.yaml").read_text()
    predictions = {policy: rows(policy, fold) for policy in RIGHT}
    for policy, items in predictions.items():
        folder = workspace / "eval" / policy
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(items), folder / "predictions.parquet")
        judges = {judge: {"worth": worth} for judge, worth in WORTH.items()}
        metrics = {"explains": policy != "direct", "judges": judges}
        (folder / "metrics.json").write_text(json.dumps(metrics))
    comparison = compare(
        predictions, samples=50, confidence=0.95, seed=seed, worth=WORTH, unexplained=["direct"]
    )
    (workspace / "report").mkdir(exist_ok=True)
    (workspace / "report/comparison.json").write_text(json.dumps(comparison))
    text = edited.replace("seed: 0", f"seed: {seed}").replace("fold: 1", f"fold: {fold}")
    (workspace / "params.yaml").write_text(text)
    git(workspace, "checkout", "--quiet", "--detach")
    git(workspace, "add", ".")
    git(workspace, "commit", "--quiet", "-m", name)
    git(workspace, "update-ref", f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}", "HEAD")
    git(workspace, "checkout", "--quiet", "main")
    (workspace / "params.yaml").write_text(edited)


def cells(table: str, policy: str) -> dict[str, str]:
    """The row of a Markdown table that begins with this."""
    header, _, *lines = [
        [cell.strip() for cell in line.strip("| ").split("|")] for line in table.splitlines()
    ]
    return next(dict(zip(header, line, strict=True)) for line in lines if line[0] == policy)


@pytest.mark.slow
def test_an_arm_that_does_not_explain_has_dashes_and_the_differences_are_the_candidates(
    workspace: Path,
) -> None:
    for fold in (1, 2, 3, 4, 5):
        finish(workspace, 101, fold)
    shown = tables(workspace, pooled=True)
    assert shown[0].startswith("5 runs (seeds 101; folds 1, 2, 3, 4, 5)")
    direct = cells(shown[1], "direct")
    assert direct["WAR"] == "20.0 ± 0.0 (20.0 to 20.0)"
    assert [direct[metric] for metric in ("EEA", "EPC", "FCR", "inconsistency")] == ["-"] * 4
    assert "direct - " not in shown[3]  # the last policy of the comparison, but not the candidate
    assert cells(shown[3], "erv - sft")["WAR"].startswith("+30.0")
    against_direct = cells(shown[3], "erv - direct")
    assert against_direct["WAR"].startswith("+40.0")
    assert against_direct["EPC"] == "-"
    assert shown[3].count("erv - direct") == 1  # judges read nothing of it
    assert shown[3].count("erv - sft") == 4  # the first judge, each of two, and their majority

    assert shown[4].startswith("seed 101, the clips of all five folds pooled")
    direct = cells(shown[5], "direct")
    assert (direct["clips"], direct["WAR"].split()[0]) == ("50", "20.0")
    assert [direct[metric] for metric in ("EEA", "EPC", "FCR", "inconsistency")] == ["-"] * 4
    assert cells(shown[5], "erv")["EPC"].startswith("60.0")
    assert shown[6::2] == [
        "seed 101, the same clips in the reading of embedding",
        "seed 101, the same clips in the reading of lexical, which hasn't shown its worth in every fold",
        "seed 101, the same clips in the reading of majority",
    ]
    assert cells(shown[7], "erv")["EPC"].startswith("60.0")
    assert cells(shown[9], "erv")["EPC"].startswith("0.0")
    assert cells(shown[9], "direct")["EPC"] == "-"


def test_runs_with_other_parameters_are_named_and_not_averaged(workspace: Path) -> None:
    params = workspace / "params.yaml"
    finish(workspace, 101, 1)
    params.write_text(PARAMS.replace("0.04", "0.1"))
    with pytest.raises(
        EvaluationError,
        match=r"finished with the parameters.*repeat-s101-f1-\w+.*grpo\.beta is 0\.04 there and 0\.1",
    ):
        tables(workspace)
    finish(workspace, 102, 1)
    shown = tables(workspace)
    assert shown[0].startswith("1 runs (seeds 102; folds 1)")
    assert "grpo.beta is 0.04 there and 0.1 now" in shown[-1]
    # What was finished before the edit is still there.
    params.write_text(PARAMS)
    assert tables(workspace)[0].startswith("1 runs (seeds 101; folds 1)")


def test_an_experiment_under_a_name_that_is_not_its_own_is_refused(workspace: Path) -> None:
    params = workspace / "params.yaml"
    name = Repeat(103, 1, digest(of_workspace(workspace))).name
    params.write_text(PARAMS.replace("0.04", "0.1"))
    finish(workspace, 103, 1, name)
    params.write_text(PARAMS)
    with pytest.raises(
        EvaluationError, match=r"grpo\.beta is 0\.1 there and 0\.04 now\), so it can't be averaged"
    ):
        tables(workspace)


def test_a_candidate_that_is_not_compared_is_named(workspace: Path) -> None:
    (workspace / "params.yaml").write_text(PARAMS.replace("policy: erv", "policy: rft"))
    finish(workspace, 101, 1)
    with pytest.raises(EvaluationError, match=r"register\.policy is 'rft', which these runs don't compare"):
        tables(workspace)


def test_an_edit_of_the_parameters_makes_a_finished_run_to_be_run(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, shipped = workspace / "params.yaml", (ROOT / "params.yaml").read_text()
    params.write_text(shipped)
    finish(workspace, 101, 1)
    monkeypatch.chdir(workspace)

    def said() -> str:
        result = CliRunner().invoke(command, ["run", "--seeds", "101", "--folds", "1", "--dry"])
        assert result.exit_code == 0, result.output
        return result.output

    assert "seed 101, fold 1: finished" in said()
    params.write_text(shipped.replace("bootstrap_samples: 2000", "bootstrap_samples: 1000"))
    assert "seed 101, fold 1: to run" in said()
