"""Two states of the pipeline side by side: commits, experiments of DVC, the workspace."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from erv.comparison.compare import Comparison, compare_sides
from erv.comparison.sides import find_side
from erv.environment import Environment
from erv.errors import RegistryError
from erv.files import md5_of_file
from erv.settings import Settings, load_settings
from tests.conftest import ROOT
from tests.unit.register.test_register import predictions, write_evaluation

MEASURED: dict[str, Any] = {"judge": {"name": "lexical", "digest": "j"}, "decoding": {"temperature": 0.0}}


@pytest.fixture
def settings() -> Settings:
    return load_settings(ROOT / "params.yaml")


@pytest.fixture
def workspace(tmp_path: Path) -> Environment:
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=tmp_path, check=True)
    return Environment(workspace=tmp_path)


def state(
    workspace: Environment, right: int, *, beta: float = 0.02, code: str = "a", **evaluation: Any
) -> None:
    """Writes params.yaml and a dvc.lock as they are after an evaluation, its outputs in DVC's cache."""
    folder = workspace.workspace
    (folder / "params.yaml").write_text(f"seed: 1\ngrpo: {{beta: {beta}}}\n")
    prefix = evaluation.pop("prefix", "")
    write_evaluation(folder / "made", predictions(right, 55, prefix=prefix), **{**MEASURED, **evaluation})
    outs = []
    for name in ("predictions.parquet", "metrics.json"):
        md5 = md5_of_file(folder / "made" / name)
        cached = folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
        cached.parent.mkdir(parents=True, exist_ok=True)
        (folder / "made" / name).rename(cached)
        outs.append({"path": f"eval/erv/{name}", "md5": md5})
    deps = [{"path": "src/erv/rewards", "md5": code * 32}, {"path": "data/shards/mafw", "md5": "0" * 32}]
    entry = {"cmd": "python -m stages.evaluate", "deps": deps, "outs": outs}
    lock = {"schema": "2.0", "stages": {"evaluate@erv": entry}}
    (folder / "dvc.lock").write_text(yaml.safe_dump(lock))


def commit(workspace: Environment) -> str:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        command = ["git", *identity, *arguments]
        done = subprocess.run(command, cwd=workspace.workspace, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("add", "params.yaml", "dvc.lock")
    git("commit", "-qm", "state")
    return git("rev-parse", "HEAD")


def compared(workspace: Environment, settings: Settings, before: str, now: str = ".") -> Comparison:
    sides = [find_side(target, workspace, settings) for target in (before, now)]
    return compare_sides(*sides, workspace, settings)


def test_a_commit_and_the_workspace(workspace: Environment, settings: Settings) -> None:
    state(workspace, 30)
    revision = commit(workspace)
    state(workspace, 54, beta=0.1, code="b")
    found = compared(workspace, settings, "main")
    assert [change.text() for change in found.parameters] == ["grpo.beta 0.02 → 0.1"]
    assert found.code == ("src/erv/rewards",)
    assert found.data == ("eval/erv/predictions.parquet",)
    (war,) = [row for row in found.rows if row.metric == "WAR"]
    assert (war.before, war.now, war.verdict) == (0.5, 0.9, "better")
    assert 0.2 < war.low < 0.4 < war.high < 0.6
    lines = found.lines()
    assert lines[0] == f"main ({revision[:8]}) → the workspace"
    assert "code: 1 differ" in lines
    assert any(line.startswith("  WAR") and line.endswith("better") for line in lines)
    assert found.document()["metrics"][0]["metric"] == "WAR"


def test_an_experiment_is_found_by_its_name(workspace: Environment, settings: Settings) -> None:
    state(workspace, 30)
    revision = commit(workspace)
    ref = f"refs/exps/{revision[:2]}/{revision[2:]}/warm"
    subprocess.run(["git", "update-ref", ref, revision], cwd=workspace.workspace, check=True)
    assert find_side("warm", workspace, settings).title == f"warm ({revision[:8]})"
    found = compared(workspace, settings, "warm")
    assert (found.parameters, found.code, found.data) == ((), (), ())
    assert "parameters: the same" in found.lines()
    assert {row.verdict for row in found.rows} == {"can't tell"}


def test_other_clips_are_left_out_and_counted(workspace: Environment, settings: Settings) -> None:
    state(workspace, 30)
    commit(workspace)
    state(workspace, 30, prefix="x")
    found = compared(workspace, settings, "HEAD")
    assert found.rows == ()
    assert found.remarks == ("erv: the two sides were tested on no clip in common",)


def test_another_judge_is_no_comparison(workspace: Environment, settings: Settings) -> None:
    state(workspace, 30)
    commit(workspace)
    state(workspace, 30, judge={"name": "lexical", "digest": "k"})
    found = compared(workspace, settings, "HEAD")
    assert found.rows == ()
    assert "not comparable" in found.remarks[0]


def test_what_nobody_knows_is_refused(workspace: Environment, settings: Settings) -> None:
    with pytest.raises(RegistryError, match="'nonsense' is no model version, run id, experiment of"):
        find_side("nonsense", workspace, settings)
    with pytest.raises(RegistryError, match=r"the workspace: has no dvc\.lock"):
        find_side(".", workspace, settings)
    state(workspace, 30)
    commit(workspace)
    sides = [find_side(target, workspace, settings) for target in ("HEAD", ".")]
    with pytest.raises(RegistryError, match="'rft' was not evaluated on both sides; both have erv"):
        compare_sides(*sides, workspace, settings, ["rft"])
