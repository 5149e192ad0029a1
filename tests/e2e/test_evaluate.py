"""Any model against the present test sets, in a clone that has trained: a folder, a version, an export."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from erv.evaluate.metrics import METRICS
from tests.e2e.workspace import Workspace

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1500)]

# The figures and tags of a run, as MLflow has them.
READ = """
import json, sys
from erv.environment import load_environment
from erv.tracking.lock_entries import client_of
client = client_of(load_environment())
run = client.get_run(sys.argv[1])
children = client.search_runs(
    [run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{sys.argv[1]}'"
)
print(json.dumps({
    "status": run.info.status,
    "tags": run.data.tags,
    "metrics": run.data.metrics,
    "artifacts": [item.path for item in client.list_artifacts(sys.argv[1])],
    "children": [child.info.run_name for child in children],
}))
"""


def evaluated(workspace: Workspace, model: str) -> dict:
    """What `erv evaluate` tracked; nothing in git's view of the workspace has changed."""
    before = workspace.run("git", "status", "--porcelain").stdout, (workspace.path / "dvc.lock").read_bytes()
    said = workspace.run("erv", "evaluate", model).stdout
    after = workspace.run("git", "status", "--porcelain").stdout, (workspace.path / "dvc.lock").read_bytes()
    assert after == before
    for metric in ("WAR", "UAR", "EEA", "EPC", "FCR"):
        assert metric in said
    match = re.search(r"^MLflow run (\w{32})$", said, re.MULTILINE)
    assert match, said
    return json.loads(workspace.run("python", "-c", READ, match[1]).stdout.splitlines()[-1])


def assert_figures_are_those_of(policy: str, found: dict, workspace: Workspace) -> None:
    comparison = json.loads((workspace.path / "report/comparison.json").read_text())
    for scope, metrics in comparison["policies"][policy].items():
        for metric in METRICS:
            item = metrics[metric]
            for key, name in (("value", ""), ("low", "/low"), ("high", "/high")):
                if item.get(key) is None:
                    continue
                assert found["metrics"][f"{scope}/{metric}{name}"] == pytest.approx(item[key]), (
                    scope,
                    metric,
                )


def test_a_folder_has_the_figures_of_the_report(trained: Workspace) -> None:
    found = evaluated(trained, "models/policy/sft")
    assert_figures_are_those_of("sft", found, trained)
    assert found["status"] == "FINISHED"
    assert (found["tags"]["erv.kind"], found["tags"]["erv.evaluated"]) == ("evaluation", "sft")
    assert {"figures.json", "metrics.json", "predictions.parquet"} <= set(found["artifacts"])
    (child,) = found["children"]
    assert child.startswith("evaluate@any-sft-")


def test_a_version_and_its_export(trained: Workspace) -> None:
    found = evaluated(trained, "challenger")
    assert_figures_are_those_of("erv", found, trained)
    assert found["tags"]["erv.evaluated"].startswith("emotion-policy version ")
    folder = trained.path.parent / "exported"
    trained.run("erv", "export", str(folder), "--model", "challenger")
    assert_figures_are_those_of("erv", evaluated(trained, str(folder)), trained)

    serving = json.loads((folder / "serving.json").read_text())
    (folder / "serving.json").write_text(json.dumps({**serving, "frames": serving["frames"] * 2}))
    refused = trained.run("erv", "evaluate", str(folder), check=False)
    assert refused.returncode == 1
    assert f"sees clips with frames {serving['frames'] * 2}" in refused.stdout.splitlines()[-1]


def test_what_is_no_model_is_refused_in_a_sentence(trained: Workspace) -> None:
    for model, said in {
        "7": "has no version or alias '7'",
        "./nosuch": "no such folder on this machine",
        "data/manifest": "holds no model",
    }.items():
        refused = trained.run("erv", "evaluate", model, check=False)
        assert refused.returncode == 1
        assert said in refused.stdout.splitlines()[-1], refused.stdout
    wrong = trained.path.parent / "wrong"
    shutil.copytree(trained.path / "models/policy/sft", wrong)
    config = json.loads((wrong / "config.json").read_text())
    (wrong / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "x.Y"}}))
    refused = trained.run("erv", "evaluate", str(wrong), check=False)
    assert refused.returncode == 1
    assert "auto_map" in refused.stdout.splitlines()[-1]


def test_test_sets_that_are_not_up_to_date_are_named(trained: Workspace) -> None:
    before = (trained.path / "params.yaml").read_bytes()
    try:
        trained.set_params({"extract": {"size": 48}})
        refused = trained.run("erv", "evaluate", "models/policy/sft", check=False)
    finally:
        (trained.path / "params.yaml").write_bytes(before)
    assert refused.returncode == 1
    assert re.search(r"data/shards\S* of extract@\w+ is out of date", refused.stdout), refused.stdout
