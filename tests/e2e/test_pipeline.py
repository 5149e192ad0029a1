"""The whole pipeline on the tiny corpus, as a user runs it: the flow, plain DVC, a deployment, a kill -9."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.torch import load_file

from tests.e2e.workspace import Listener, Workspace, clone, kill_tree
from tests.support.paths import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]

# So tiny policies earn nothing, which would end their training after ten steps.
LONGER = {
    "machine": {"grpo": {"save_steps": 4}},
    "grpo": {"max_steps": 24, "collapse_patience": None},
}
STAGES = 21  # what the matrices of dvc.yaml expand to


def test_flow_runs_everything_and_says_where_to_look(trained: Workspace, foreign: Listener) -> None:
    output = trained.log[0]
    assert len(_stages(output, "ran")) == STAGES, output[-4000:]
    for word in (
        "WAR",
        "UAR",
        "EEA",
        "EPC",
        "FCR",
        "inconsistency",
        "r1_omni",
        "challenger",
        "report.html",
        "http://127.0.0.1",
    ):
        assert word in output
    assert (trained.path / "report/report.html").stat().st_size > 10_000
    kept = re.search(r"^report +\S+/runs/(\w+)/artifacts/report/report\.html$", output, re.MULTILINE)
    assert kept is not None, "the copy that names its origin"
    assert re.search(r"^report file +/.*/report/report\.html$", output, re.MULTILINE)
    script = (
        "import urllib.request\n"
        "from erv.environment import load_environment\n"
        "here = load_environment()\n"
        f"url = here.mlflow_uri + '/get-artifact?run_uuid={kept[1]}&path=report/report.html'\n"
        "request = urllib.request.Request(url, headers=here.mlflow_headers)\n"
        "print('Where this report comes from' in urllib.request.urlopen(request).read().decode())\n"
    )
    assert trained.run("python", "-c", script).stdout.strip() == "True"
    comparison = json.loads((trained.path / "report/comparison.json").read_text())
    assert set(comparison["policies"]) == {"sft", "r1_omni", "erv"}
    assert re.search(r"^by setting +\S+/runs/\w+/artifacts/report/by_setting\.html$", output, re.MULTILINE)
    trained.run("erv", "figures", "--no-published")
    found = json.loads((trained.path / "report/by_setting.json").read_text())
    assert {(item["policy"], item["dataset"]) for item in found["results"]} == {
        (policy, scope) for policy in ("sft", "r1_omni", "erv") for scope in ("mafw", "dfew", "overall")
    }
    assert found["unknown"] == {}, "what this run decided and nobody noted"
    assert found["same"]["precision"] == "float32 on cpu"
    assert foreign.connections == 0, "the user's own MLflow, Prefect or S3 was contacted"


def test_second_run_changes_nothing(trained: Workspace) -> None:
    before = (trained.path / "dvc.lock").read_bytes()
    output = trained.run("erv", "run").stdout
    assert len(_stages(output, "unchanged")) == STAGES, output[-4000:]
    assert (trained.path / "dvc.lock").read_bytes() == before


def test_plain_dvc_agrees_and_everything_is_in_s3(trained: Workspace) -> None:
    assert "up to date" in trained.run("dvc", "repro").stdout
    assert "Cache and remote" in trained.run("dvc", "status", "-c").stdout
    script = (
        "import json, sys, yaml\n"
        "from pathlib import Path\n"
        "from erv.environment import load_environment\n"
        "from erv.storage.store import open_store\n"
        "environment = load_environment(); store = open_store(environment)\n"
        "base = f's3://{environment.dvc_bucket}'\n"
        "parts = [o.uri.rpartition('/files/md5/') for o in store.list(base)]\n"
        "keys = {key.replace('/', '') for _, found, key in parts if found}\n"
        "outs = [o for s in yaml.safe_load(open('dvc.lock'))['stages'].values() for o in s['outs']]\n"
        "wanted = {o['md5'] for o in outs}\n"
        "cache = lambda md5: Path('.dvc/cache/files/md5') / md5[:2] / md5[2:]\n"
        "folders = [json.loads(cache(md5).read_text()) for md5 in wanted if md5.endswith('.dir')]\n"
        "wanted |= {file['md5'] for folder in folders for file in folder}\n"
        "missing = wanted - keys\n"
        "print(len(wanted), 'objects,', len(missing), 'missing'); sys.exit(bool(missing) or not wanted)\n"
    )
    trained.run("python", "-c", script)


@pytest.mark.slow
def test_one_grpo_parameter_reruns_only_what_depends_on_it(trained: Workspace) -> None:
    output = trained.run("dvc", "exp", "run", "-S", "grpo.beta=0.3").stdout
    trained.run("git", "checkout", "-q", "params.yaml")
    ran = set(re.findall(r"Running stage '([^']+)'", output))
    trained_again = {"grpo@r1_omni", "grpo@erv"}
    # Where a tiny policy earns no reward its weights come out equal, and what follows is up to date.
    assert trained_again <= ran, output
    follows = {"evaluate@r1_omni", "evaluate@erv", "grounding", "report", "register"}
    assert ran <= trained_again | follows, output


@pytest.mark.slow
def test_going_back_restores_what_ran_before(trained: Workspace) -> None:
    trained.run("erv", "run", "register")
    before = _outs(trained)
    trained.run("dvc", "exp", "run", "-S", "grpo.beta=0.2")
    trained.run("git", "checkout", "-q", "params.yaml")
    output = trained.run("erv", "run", "register").stdout
    assert {"grpo@r1_omni", "grpo@erv"} <= _stages(output, "restored"), output[-4000:]
    assert not _stages(output, "ran")
    assert _outs(trained) == before


def test_the_workflow_makes_a_comment_of_the_metrics(trained: Workspace) -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/tiny-run.yml").read_text())
    step = next(s for s in workflow["jobs"]["tiny-run"]["steps"] if s.get("name") == "Metrics")
    (trained.path / "summary.txt").write_text(trained.log[0])
    summary = trained.path.parent / "step_summary.md"
    script = f"export GITHUB_STEP_SUMMARY={summary} COMMIT={'c0ffee12' * 5}\n{step['run']}"
    trained.run("bash", "-e", "-o", "pipefail", "-c", script)
    comment = (trained.path / "comment.md").read_text()
    assert summary.read_text() == comment
    assert comment.startswith("### Tiny run of `c0ffee12`\n")
    assert re.search(r"^\| Path +\|.*erv", comment, re.M), comment
    assert "lineage (`erv lineage` shows more)" in comment


@pytest.mark.slow
def test_deployment_runs_with_a_worker(trained: Workspace) -> None:
    exports = trained.run("erv", "stack", "env").stdout
    trained.run("erv", "run", "--deploy")
    worker = trained.start("erv", "run", "--worker")
    try:
        trained.run("bash", "-c", f"{exports}\nprefect deployment run train/local --watch", timeout=300)
    finally:
        os.killpg(worker.pid, signal.SIGTERM)
        time.sleep(3)
        kill_tree(worker)


@pytest.mark.slow
def test_a_stage_trains_in_two_processes_and_reports_once(trained: Workspace) -> None:
    before = (trained.path / "params.yaml").read_text()
    output = trained.path.parent / "two"
    trained.set_params({"machine": {"accelerate": "ddp", "processes": 2}})
    options = {
        "variant": "r1_omni",
        "manifests": "data/manifest",
        "shards": "data/shards",
        "exclusions": "data/exclusions.json",
        "cues": "data/cues",
        "training-sets": "data/training_sets.json",
        "cold-start": "models/policy/sft",
        "verifier": "models/verifier",
        "policy": str(output),
        "curves": str(output.parent / "two.csv"),
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    try:
        said = trained.run("python", "-m", "stages.grpo", *words).stdout
    finally:
        (trained.path / "params.yaml").write_text(before)
    assert said.count("grpo: step 4/4,") == 1, said
    assert (output / "model.safetensors").is_file()
    alone = load_file(trained.path / "models/policy/r1_omni/model.safetensors")
    assert load_file(output / "model.safetensors").keys() == alone.keys()


@pytest.mark.slow
def test_every_arm_is_one_edit_away(trained: Workspace) -> None:
    """Each variant that params.yaml ships, a policy from elsewhere, and one that answers without thinking."""
    before = (trained.path / "params.yaml").read_text()
    variants = list(yaml.safe_load(before)["variants"])
    # Arms can only differ where completions earn something: enough steps for whole ones, and for a verifier.
    trained.set_params(
        {
            "sft": {"max_steps": 200},
            "train_erv": {"max_steps": 300, "eval_steps": 100},
            "grpo": {"max_completion_length": 80},
            "evaluate": {"max_new_tokens": 80},
            # So small a policy has no explanation of which every sentence is right.
            "variants": {"rft": {"passes_at": 0.0}},
        }
    )
    policies = ["sft", *variants, "sft_direct", "theirs"]
    try:
        trained.run("erv", "run", "report")
        theirs = trained.path.parent / "theirs"
        shutil.copytree(trained.path / "models/policy/r1_omni", theirs, dirs_exist_ok=True)
        arms = [
            {"name": "sft_direct", "folder": "models/policy/sft", "thinks": False},
            {"name": "theirs", "folder": str(theirs)},
        ]
        trained.set_params({"arms": arms, "compare": {"train": variants, "policies": policies}})
        output = trained.run("erv", "run", "report").stdout
        _shows_every_arm(trained, variants, policies, theirs, output)
    finally:
        (trained.path / "params.yaml").write_text(before)
        trained.run("erv", "run", "report")  # what the next tests find is what the flow left


def _shows_every_arm(
    trained: Workspace, variants: list[str], policies: list[str], theirs: Path, output: str
) -> None:
    """What was trained before stayed, and each arm learned and answered as its own entry says."""
    there = {f"{stage}@{name}" for stage in ("grpo", "evaluate") for name in ("r1_omni", "erv")}
    assert {"sft", "train_erv", "evaluate@sft", *there} <= _stages(output, "unchanged"), output[-4000:]
    added = [name for name in variants if name not in ("r1_omni", "erv")]
    assert {"arms@arm0", "arms@arm1", *(f"grpo@{name}" for name in added)} <= _stages(output, "ran")

    weights = {
        n: load_file(trained.path / f"models/policy/{n}/model.safetensors") for n in ("sft", *variants)
    }
    digests = {
        name: hashlib.sha256(b"".join(values[key].numpy().tobytes() for key in sorted(values))).hexdigest()
        for name, values in weights.items()
    }
    assert len(set(digests.values())) == len(digests), f"arms that learned the same: {digests}"

    comparison = json.loads((trained.path / "report/comparison.json").read_text())
    assert comparison["order"] == policies
    for policy in policies:
        silent = policy in ("direct", "sft_direct")
        assert ("EPC" in comparison["policies"][policy]["overall"]) is not silent, policy
        assert "WAR" in comparison["policies"][policy]["overall"], policy
        said = pq.read_table(trained.path / f"eval/{policy}/predictions.parquet", columns=["completion"])
        at_once = [text.startswith("<think></think>") for text in said.column(0).to_pylist()]
        assert set(at_once) == {silent}, policy
    assert "theirs-r1_omni" in comparison["same_answers"]
    recorded = json.loads((trained.path / "models/policy/theirs/arm.json").read_text())
    assert recorded["folder"] == str(theirs)
    assert len(recorded["digest"]) == 64


@pytest.mark.slow
def test_kill_in_grpo_leaves_no_orphan_and_the_next_run_resumes(trained: Workspace) -> None:
    trained.set_params(LONGER)
    before = trained.lock()
    flow = trained.start("erv", "run")
    log = Path(trained.log[-1])
    try:
        _wait(lambda: list((trained.path / ".erv/checkpoints").rglob("checkpoint-8")), 240, log)
    finally:
        os.kill(_flow_pid(trained, flow.pid), signal.SIGKILL)
    flow.wait(timeout=30)
    _wait(lambda: not trained.processes(), 20, log, lambda: [p.cmdline() for p in trained.processes()])
    assert not (trained.path / "models/policy/erv/config.json").exists(), "half-written output"
    output = trained.run("erv", "run").stdout
    assert "resuming from checkpoint-" in output, output[-4000:]
    assert {"extract@mafw", "sft", "train_erv"} <= _stages(output, "unchanged")
    after = trained.lock()
    assert after["sft"] == before["sft"]
    assert after["grpo@erv"]["params"]["params.yaml"]["grpo"]["max_steps"] == 24
    assert "up to date" in trained.run("dvc", "repro").stdout


@pytest.mark.slow
def test_dvc_repro_alone_in_another_clone_gives_the_same_hashes(
    trained: Workspace, foreign: Listener, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = clone(tmp_path_factory.mktemp("plain"), foreign)
    # The state that the kill test leaves: trained in one go here, in two parts there.
    other.set_params(LONGER)
    try:
        trained.set_params(LONGER)
        trained.run("dvc", "repro")
        other.run("erv", "stack", "up")
        other.run("erv", "sample-data", "--size", "tiny", "--upload")
        other.run("erv", "data", "pin")
        other.run("dvc", "repro")
        published = other.run("erv", "publish").stdout
        assert "challenger" in published
    finally:
        other.run("erv", "stack", "down", check=False)
    here, there = _outs(trained), _outs(other)
    # dvc.lock also remembers the arms that another test added.
    assert {path: here.get(path) for path in there} == there
    assert foreign.connections == 0


def _stages(output: str, outcome: str) -> set[str]:
    """The stages that the summary of a flow run lists under an outcome."""
    return set(re.findall(rf"^(\S+)\s+{outcome}\b", output, re.MULTILINE))


def _outs(workspace: Workspace) -> dict[str, str]:
    return {out["path"]: out["md5"] for stage in workspace.lock().values() for out in stage["outs"]}


def _flow_pid(workspace: Workspace, started: int) -> int:
    """The process that runs the flow (what `erv run` became or started)."""
    flows = [p.pid for p in workspace.processes() if "flows.run" in " ".join(p.cmdline())]
    return flows[0] if flows else started


def _wait(condition, seconds: float, log: Path, detail=lambda: "") -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s {detail()}:\n{log.read_text()[-4000:]}")
        time.sleep(0.2)
