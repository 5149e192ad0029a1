"""Two states of the pipeline side by side: commits, experiments of DVC, the workspace."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from erv.comparison.compare import Comparison, compare_sides
from erv.comparison.differences import Difference, differing_code, differing_data
from erv.comparison.sides import find_side
from erv.environment import Environment
from erv.errors import ErvError, RegistryError
from erv.files import md5_of_file
from erv.settings import Settings, load_settings
from tests.conftest import ROOT
from tests.unit.register.test_register import predictions, write_evaluation

CODE = "src/erv/reward.py"
SCHEMA = json.loads((ROOT / "src/erv/comparison/schemas/comparison.json").read_text())
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
    (folder / "params.yaml").write_text(f"seed: 1\ngrpo: {{beta: {beta}, steps: 2}}\n")
    (folder / CODE).parent.mkdir(parents=True, exist_ok=True)
    (folder / CODE).write_text(code)
    rows = predictions(right, 55, prefix=evaluation.pop("prefix", ""))
    changed, recorded = evaluation.pop("changed", 0), evaluation.pop("recorded", True)
    for row in rows:
        row["sha256"] = row["sha256"] if recorded else None
    for row in rows[:changed]:
        row["sha256"] = "0" * 64
    by = {"code": evaluation.pop("measured_by", {})}
    write_evaluation(folder / "made", rows, **{**MEASURED, **by, **evaluation})
    outs = []
    for name in ("predictions.parquet", "metrics.json"):
        md5 = md5_of_file(folder / "made" / name)
        cached = folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
        cached.parent.mkdir(parents=True, exist_ok=True)
        (folder / "made" / name).rename(cached)
        outs.append({"path": f"eval/erv/{name}", "md5": md5})
    deps = [{"path": CODE, "md5": md5_of_file(folder / CODE)}, {"path": "data/shards/mafw", "md5": "0" * 32}]
    params = {"params.yaml": {"seed": 1, "grpo": {"beta": beta, "steps": 2}}}
    entry = {"cmd": "python -m stages.evaluate", "deps": deps, "params": params, "outs": outs}
    lock = {"schema": "2.0", "stages": {"evaluate@erv": entry}}
    (folder / "dvc.lock").write_text(yaml.safe_dump(lock))


def commit(workspace: Environment) -> str:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        command = ["git", *identity, *arguments]
        done = subprocess.run(command, cwd=workspace.workspace, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("add", "*.yaml", "dvc.lock", CODE)
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
    assert found.code == (Difference(CODE, ("evaluate@erv",)),)
    assert found.data == (Difference("eval/erv/predictions.parquet", ("evaluate@erv",)),)
    (war,) = [row for row in found.rows if row.metric == "WAR"]
    assert (war.before, war.now, war.verdict) == (0.5, 0.9, "better")
    assert 0.2 < war.low < 0.4 < war.high < 0.6
    lines = found.lines()
    assert lines[0] == f"main ({revision[:8]}) → the workspace"
    assert "code: 1 difference" in lines
    assert "erv: the same answers" not in lines
    assert any(line.startswith("  WAR") and line.endswith("better") for line in lines)
    document = json.loads(json.dumps(found.document()))
    jsonschema.validate(document, SCHEMA)
    assert document["metrics"][0]["metric"] == "WAR"
    assert document["code"] == [{"path": CODE, "stages": ["evaluate@erv"]}]
    side = {"title": f"main ({revision[:8]})", "commit": revision, "dirty": False, "remarks": []}
    assert document["before"] == side


@pytest.mark.parametrize("target", ["champion", "3", "0" * 32])
def test_what_only_mlflow_knows_takes_a_server(
    workspace: Environment, settings: Settings, target: str
) -> None:
    with pytest.raises(RegistryError, match="no MLflow server is named; run `erv stack up`"):
        find_side(target, workspace, settings)


def test_parameters_that_nothing_ran_with_are_named(workspace: Environment, settings: Settings) -> None:
    state(workspace, 30)
    commit(workspace)
    (workspace.workspace / "params.yaml").write_text("seed: 2\ngrpo: {beta: 0.02, steps: 2, new: 1}\n")
    found = compared(workspace, settings, "HEAD")
    said = (
        "not run with these parameters: evaluate@erv (seed 1 → 2, grpo.new absent → 1);"
        " outputs and metrics are from before"
    )
    assert (found.before.remarks, found.now.remarks) == ((), (said,))
    assert f"  the workspace: {said}" in found.lines()
    assert found.document()["now"]["remarks"] == [said]
    commit(workspace)  # without running
    assert find_side("HEAD", workspace, settings).remarks == (said,)


def test_files_that_nothing_ran_with_are_named(workspace: Environment, settings: Settings) -> None:
    state(workspace, 30)
    assert find_side(".", workspace, settings).remarks == ()
    (workspace.workspace / CODE).write_text("edited")
    said = f"not run with these files: evaluate@erv ({CODE}); outputs and metrics are from before"
    assert find_side(".", workspace, settings).remarks == (said,)
    (workspace.workspace / CODE).unlink()
    assert find_side(".", workspace, settings).remarks == (said,)


def test_a_commit_whose_code_nothing_ran_with_says_so(workspace: Environment, settings: Settings) -> None:
    """Code is committed before it runs, so `erv compare HEAD~1 HEAD` finds one `dvc.lock` twice."""
    state(workspace, 30)
    commit(workspace)
    (workspace.workspace / CODE).write_text("edited")
    commit(workspace)
    (workspace.workspace / CODE).write_text("edited again")  # what is here now doesn't matter
    said = f"not run with these files: evaluate@erv ({CODE}); outputs and metrics are from before"
    found = compared(workspace, settings, "HEAD~1", "HEAD")
    assert (found.before.remarks, found.now.remarks) == ((), (said,))
    assert found.code == ()


def test_an_evaluation_of_an_earlier_policy_says_so(workspace: Environment, settings: Settings) -> None:
    """The answers are the same, as nothing has asked the new policy yet."""
    state(workspace, 30)
    path = workspace.workspace / "dvc.lock"
    document = yaml.safe_load(path.read_text())
    entries = document["stages"]
    entries["evaluate@erv"]["deps"].append({"path": "models/policy/erv", "md5": f"{1:032x}.dir"})
    entries["grpo@erv"] = {
        **entries["evaluate@erv"],
        "deps": [],
        "outs": [{"path": "models/policy/erv", "md5": f"{1:032x}.dir"}],
    }
    path.write_text(yaml.safe_dump(document))
    commit(workspace)
    entries["grpo@erv"]["outs"][0]["md5"] = f"{2:032x}.dir"
    path.write_text(yaml.safe_dump(document))
    said = (
        "not run with these data and models: evaluate@erv (models/policy/erv); outputs and metrics are from"
        " before"
    )
    found = compared(workspace, settings, "HEAD")
    assert (found.before.remarks, found.now.remarks) == ((), (said,))
    commit(workspace)
    assert find_side("HEAD", workspace, settings).remarks == (said,)


def test_stages_that_are_gone_are_not_compared(workspace: Environment, settings: Settings) -> None:
    """DVC keeps their entries in `dvc.lock`."""
    state(workspace, 30)
    folder = workspace.workspace
    lock = yaml.safe_load((folder / "dvc.lock").read_text())
    lock["stages"]["gone"] = {"cmd": "x", "outs": [{"path": "o/gone", "md5": "1" * 32}]}
    (folder / "dvc.lock").write_text(yaml.safe_dump(lock))
    (folder / "dvc.yaml").write_text("stages: {evaluate: {matrix: {policy: [erv]}, cmd: x}}\n")
    commit(workspace)
    assert list(find_side("HEAD", workspace, settings).lock) == ["evaluate@erv"]
    assert compared(workspace, settings, "HEAD").data == ()


def test_git_is_asked_before_a_registry_that_may_be_down(workspace: Environment, settings: Settings) -> None:
    state(workspace, 30)
    revision = commit(workspace)
    down = replace(workspace, mlflow_uri="http://127.0.0.1:9")
    assert find_side("main", down, settings).commit == revision
    assert find_side(revision[:9], down, settings).commit == revision
    subprocess.run(["git", "tag", "champion"], cwd=down.workspace, check=True)
    for version in ("champion", "1", "models:/emotion-policy/1", "emotion-policy@best"):
        with pytest.raises(ErvError, match="MLflow"):
            find_side(version, down, settings)


def reads(**deps: dict[str, str]) -> dict[str, Any]:
    """Lock entries of stages, with the digests of what each reads."""
    return {name: {"deps": [{"path": p, "md5": m} for p, m in read.items()]} for name, read in deps.items()}


FILES = "src/erv/files.py"


def test_a_dependency_is_compared_for_each_stage() -> None:
    """After `erv run --only sft`, one file has two contents in `dvc.lock`."""
    before = reads(sft={FILES: "1"}, evaluate={FILES: "1"})
    (found,) = differing_code(before, reads(sft={FILES: "2"}, evaluate={FILES: "1"}))
    assert found.text() == "src/erv/files.py (for sft)"
    assert differing_code(before, before) == ()


def test_a_new_stage_is_no_difference_of_what_it_reads() -> None:
    before = reads(sft={FILES: "1"})
    assert differing_code(before, reads(sft={FILES: "1"}, rft={FILES: "1"})) == ()
    (found,) = differing_code(before, reads(sft={FILES: "1"}, rft={FILES: "2"}))
    assert found.stages == ("rft",)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("src/erv/rewards", True),
        ("stages/sft.py", True),
        ("requirements/results.lock", True),
        ("mine/reward.py", True),
        ("data/label_spaces/mafw.yaml", True),
        ("data/prompts/mine.txt", False),
        ("data/sources/mafw.lock.json", False),
        ("data/judge_texts", False),
        ("/mnt/models/humanomni", False),
    ],
)
def test_everything_that_stages_read_is_compared(path: str, code: bool) -> None:
    before, now = reads(sft={path: "1"}), reads(sft={path: "2"})
    found = {True: differing_code(before, now), False: differing_data(before, now)}
    assert found == {code: (Difference(path, ("sft",)),), not code: ()}


def test_what_a_stage_wrote_is_named_once() -> None:
    def entries(md5: str) -> dict[str, Any]:
        wrote = {"outs": [{"path": "data/manifest/mafw.parquet", "md5": md5}]}
        return {"ingest@mafw": wrote, **reads(leakage={"data/manifest": f"{md5}.dir"})}

    found = differing_data(entries("1"), entries("2"))
    assert found == (Difference("data/manifest/mafw.parquet", ("ingest@mafw",)),)


def test_an_experiment_is_found_by_its_name(workspace: Environment, settings: Settings) -> None:
    state(workspace, 30)
    revision = commit(workspace)
    ref = f"refs/exps/{revision[:2]}/{revision[2:]}/warm"
    subprocess.run(["git", "update-ref", ref, revision], cwd=workspace.workspace, check=True)
    assert find_side("warm", workspace, settings).title == f"warm ({revision[:8]})"
    found = compared(workspace, settings, "warm")
    assert (found.parameters, found.code, found.data) == ((), (), ())
    assert "parameters: the same" in found.lines()
    assert found.lines()[-1] == "erv: the same answers"
    assert {row.verdict for row in found.rows} == {"can't tell"}


def test_a_name_of_several_experiments_is_told_with_their_revisions(
    workspace: Environment, settings: Settings
) -> None:
    """It was a dictionary of Python, with whole hashes."""
    state(workspace, 30)
    found = {}
    for beta in (0.02, 0.03):
        state(workspace, 30, beta=beta)
        baseline = commit(workspace)
        state(workspace, 30, beta=beta + 1)
        found[baseline] = commit(workspace)
        ref = f"refs/exps/{baseline[:2]}/{baseline[2:]}/warm"
        subprocess.run(["git", "update-ref", ref, found[baseline]], cwd=workspace.workspace, check=True)
    with pytest.raises(RegistryError) as caught:
        find_side("warm", workspace, settings)
    said = str(caught.value)
    assert said.startswith("warm: 2 experiments on different commits have this name; say which by its own")
    for baseline, revision in found.items():
        assert f"{revision[:8]} (of {baseline[:8]})" in said
        side = find_side(revision[:8], workspace, settings)
        assert side.commit == revision
    assert "{" not in said


def test_a_commit_that_the_title_names_is_told_once(workspace: Environment, settings: Settings) -> None:
    state(workspace, 30)
    revision = commit(workspace)
    text = "\n".join(compared(workspace, settings, "HEAD", revision[:10]).lines())
    assert text.startswith(f"HEAD ({revision[:8]}) → commit {revision[:8]}\n\n")
    side = replace(find_side(".", workspace, settings), commit=revision, dirty=True)
    lines = compare_sides(side, side, workspace, settings).lines()
    assert f"  the workspace: commit {revision[:8]} with uncommitted changes" in lines


def test_a_metric_that_one_side_lacks_is_shown(workspace: Environment, settings: Settings) -> None:
    """Inconsistency is a share of the right answers; without one it had no row."""
    state(workspace, 0)
    commit(workspace)
    state(workspace, 40)
    found = compared(workspace, settings, "HEAD")
    (row,) = [row for row in found.rows if row.metric == "inconsistency"]
    assert (row.before, row.low, row.high, row.verdict) == (None, None, None, "can't tell")
    assert row.now is not None
    (line,) = [line for line in found.lines() if line.startswith("  inconsistency")]
    assert line.split() == ["inconsistency", "none", "→", f"{100 * row.now:.1f}", "can't", "tell"]
    jsonschema.validate(json.loads(json.dumps(found.document())), SCHEMA)


def test_other_clips_are_left_out_and_counted(workspace: Environment, settings: Settings) -> None:
    state(workspace, 30)
    commit(workspace)
    state(workspace, 30, prefix="x")
    found = compared(workspace, settings, "HEAD")
    assert found.rows == ()
    assert found.remarks == ("erv: the two sides were tested on no clip in common",)


def test_clips_whose_content_changed_are_left_out_and_counted(
    workspace: Environment, settings: Settings
) -> None:
    state(workspace, 40)
    before = commit(workspace)
    state(workspace, 50, changed=7)
    found = compared(workspace, settings, before)
    assert found.remarks == ("erv: compared on 53 clips; 7 are not on both sides, or changed",)
    state(workspace, 50, recorded=False)  # of an older erv
    found = compared(workspace, settings, before)
    assert found.remarks == ("erv: paired by clip ids alone, as not both sides recorded what the clips hold",)
    assert found.rows


def test_another_judge_is_no_comparison(workspace: Environment, settings: Settings) -> None:
    state(workspace, 30)
    commit(workspace)
    state(workspace, 30, judge={"name": "lexical", "digest": "k"})
    found = compared(workspace, settings, "HEAD")
    assert found.rows == ()
    assert "not comparable" in found.remarks[0]


def test_answers_that_other_code_read_are_no_comparison(workspace: Environment, settings: Settings) -> None:
    state(workspace, 30, measured_by={"reading": "r", "figures": "f"})
    commit(workspace)
    state(workspace, 30, measured_by={"reading": "s", "figures": "f"})
    found = compared(workspace, settings, "HEAD")
    assert found.rows == ()
    assert "not comparable" in found.remarks[0]
    assert "differ in their code that reads answers" in found.remarks[0]


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
