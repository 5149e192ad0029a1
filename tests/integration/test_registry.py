"""From a candidate bundle to a champion on a real MLflow server, and back along its lineage."""

from __future__ import annotations

import re
import subprocess
import uuid
from pathlib import Path

import pytest
import yaml

from erv.environment import Environment, isolate
from erv.lineage.served import Place
from erv.pipeline import read_lock_entries
from erv.storage.store import open_store
from erv.tracking.lock_entries import client_of
from erv.tracking.origin import who
from tests.integration.scratch import Scratch
from tests.support.tiny_bundle import write_clip, write_models

pytestmark = pytest.mark.integration

NAME = f"policy-{uuid.uuid4().hex[:8]}"  # on servers that other tests use, too
PIPELINE = """
stages:
  register:
    cmd: python candidate.py
    deps: [candidate.py, inputs, control/quality.txt]
    params: [register]
    outs: [models/candidate]
"""
# What the stages before would have left, as good as control/quality.txt says: "RIGHT AGREEING" and, for other
# clips, a prefix; "judge" for another judge.
CANDIDATE = """
import json
from pathlib import Path
from erv.register.register import write_candidate
from erv.evaluate.evaluate import write_predictions
from erv.settings import load_settings
from tests.support.tiny_bundle import SERVING
from tests.unit.register.test_register import WORTH, comparison_of, predictions, write_evaluation

right, agreeing, *more = Path("control/quality.txt").read_text().split()
prefix = [word for word in more if word != "judge"]
judge = [word for word in more if word == "judge"]
mine = predictions(int(right), int(agreeing), prefix="".join(prefix))
base = predictions(40, 20, prefix="".join(prefix))
work = Path(".erv/work")
work.mkdir(parents=True, exist_ok=True)
digest = "j" + "".join(judge)
panel = {"lexical": {"digest": digest, "worth": WORTH}}
for name, rows in {"erv": mine, "r1_omni": base}.items():
    write_evaluation(work / name, rows, judge={"digest": digest}, judges=panel, decoding={"split": "test"})
(work / "comparison.json").write_text(json.dumps(comparison_of(sft=base, r1_omni=base, erv=mine)))
write_candidate(
    Path("models/candidate"),
    policy=Path("inputs/policy"),
    verifier=Path("inputs/verifier"),
    evaluations=work,
    comparison=work / "comparison.json",
    serving=SERVING,
    settings=load_settings().register_,
    seed=0,
)
"""


@pytest.fixture(scope="module")
def scratch(stack: Environment, tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    scratch = Scratch(tmp_path_factory.mktemp("registry"), stack)
    params = scratch.folder / "params.yaml"
    params.write_text(params.read_text().replace("emotion-policy", NAME))
    (scratch.folder / "dvc.yaml").write_text(PIPELINE)
    (scratch.folder / "candidate.py").write_text(CANDIDATE)
    write_models(scratch.folder / "inputs")
    scratch.control("quality", "50 50")
    return scratch


@pytest.fixture(scope="module")
def first(scratch: Scratch) -> str:
    done = scratch.erv("run", "--require-gates", "--require-lineage")
    return done.stdout + done.stderr  # what a terminal shows


@pytest.fixture(scope="module")
def worse(scratch: Scratch, first: str) -> subprocess.CompletedProcess[str]:
    """The flow with a second candidate, which doesn't pass its gates; version 2."""
    scratch.control("quality", "42 50")
    return scratch.erv("run", "--require-gates", "--require-lineage", check=False)


def aliases(scratch: Scratch) -> dict[str, str]:
    found = client_of(scratch.environment).get_registered_model(NAME).aliases
    return {alias: str(version) for alias, version in found.items()}


def test_the_flow_registers_the_first_candidate_as_champion(scratch: Scratch, first: str) -> None:
    assert f"{NAME} version 1 registered; alias challenger, champion" in first
    assert "all gates hold: it is the champion" in first
    assert aliases(scratch) == {"challenger": "1", "champion": "1"}


def test_each_long_step_is_named_before_it_begins(scratch: Scratch, first: str) -> None:
    steps = [
        "reading pipeline and pins, and checking settings, judges, disk and servers",
        "asking DVC which stages are up to date",
        "1 stage",
        f"storing the outputs in s3://{scratch.environment.dvc_bucket}",
        "registering the candidate, and deciding its gates",
        "verifying the lineage of version 1",
        "writing figures, links and tables to MLflow and Prefect",
    ]
    found = [line[9:] for line in first.splitlines() if line[9:] in steps]
    assert found == steps, first
    assert first.splitlines().count("starting the train flow") == 1


def test_the_same_bundle_is_registered_once(scratch: Scratch, first: str) -> None:
    assert f"{NAME} version 1 was already registered" in scratch.erv("publish").stdout
    assert len(client_of(scratch.environment).search_model_versions(f"name = '{NAME}'")) == 1


def test_a_version_answers_for_a_clip(
    scratch: Scratch, first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    import pandas as pd

    write_clip(tmp_path / "clip.mp4")
    isolate(scratch.environment)
    monkeypatch.setenv("ERV_SERVE_ROOT", str(tmp_path))
    mlflow.set_tracking_uri(scratch.environment.mlflow_uri)
    model = mlflow.pyfunc.load_model(f"models:/{NAME}/1")
    table = model.predict(pd.DataFrame({"clip": ["clip.mp4"]}))
    assert list(table.columns) == ["clip", "answer", "explanation", "agreement", "completion", "error"]
    assert table["clip"][0] == "clip.mp4"
    assert table["error"][0] is None
    assert isinstance(table["completion"][0], str)


def test_lineage_of_the_champion_holds(scratch: Scratch, first: str) -> None:
    output = scratch.erv("lineage", "champion").stdout
    entry = read_lock_entries(scratch.folder / "dvc.lock")["register"]
    assert output.startswith(f"{NAME} version 1 (challenger, champion)")
    assert "register  lock entry " in output
    assert f"md5 {entry['outs'][0]['md5']}" in output
    assert f"ok: dvc.lock (register's output in it is this bundle, md5 {entry['outs'][0]['md5']})" in output
    assert "0 broken" in output
    by_hash = scratch.erv("lineage", entry["outs"][0]["md5"]).stdout
    assert f"in {NAME} version 1" in by_hash
    flows = {run.data.tags["prefect.flow_run_id"] for run in scratch.runs()["train"]}
    assert re.search(r"Prefect flow run (\S+)", output).group(1) in flows  # type: ignore[union-attr]
    run_id = re.search(r"published by run ([0-9a-f]{32})", output).group(1)  # type: ignore[union-attr]
    assert "publish, FINISHED" in scratch.erv("lineage", run_id).stdout


@pytest.mark.slow
def test_a_lost_and_a_changed_object_break_the_lineage(scratch: Scratch, first: str) -> None:
    store, bucket = open_store(scratch.environment), scratch.environment.dvc_bucket
    small = min(store.list(f"s3://{bucket}/files/md5"), key=lambda info: (info.size, info.key))
    content = store.read(small.uri)
    try:
        store.delete(small.uri)
        lost = scratch.erv("lineage", "champion", check=False)
        store.write(b"something else", small.uri)
        changed = scratch.erv("lineage", "champion", check=False)
    finally:
        store.write(content, small.uri)
    assert (lost.returncode, changed.returncode) == (4, 4)
    assert "BROKEN: models/candidate" in lost.stdout
    assert f"{small.uri}: missing; run `dvc push`" in lost.stdout
    assert f"{small.uri}: its content differs from its name; delete that object" in changed.stdout


@pytest.mark.parametrize("command", ["publish", pytest.param("run", marks=pytest.mark.slow)])
def test_what_is_required_of_the_lineage_is_looked_up_now(scratch: Scratch, first: str, command: str) -> None:
    """Also where no gate asks for it: a stored verdict would be missing, or out of date."""
    store, client = open_store(scratch.environment), client_of(scratch.environment)
    place = Place(scratch.environment, client, client.get_model_version_by_alias(NAME, "challenger"))
    uri = place.of("code/erv/answering/predictor.py").partition("(")[2].removesuffix(")")
    parameters, code = scratch.folder / "params.yaml", store.read(uri)
    before = parameters.read_text()
    try:
        parameters.write_text(before.replace("require_lineage: true", "require_lineage: false"))
        store.write(code + b"\n", uri)
        broken = scratch.erv(command, "--require-lineage", check=False)
        store.write(code, uri)
        whole = scratch.erv(command, "--require-lineage", check=False)
    finally:
        parameters.write_text(before)
        store.write(code, uri)
    assert broken.returncode == 4, broken.stderr
    assert "error: the lineage of the version doesn't hold" in broken.stderr
    assert whole.returncode == 0, whole.stderr


def test_nothing_of_that_name(scratch: Scratch, first: str) -> None:
    result = scratch.erv("lineage", "nonsense", check=False)
    assert result.returncode == 1
    assert f"error: 'nonsense' is not a version or alias of {NAME}" in result.stderr


@pytest.mark.slow
def test_a_worse_candidate_is_kept_from_champion(
    scratch: Scratch, worse: subprocess.CompletedProcess[str]
) -> None:
    assert f"{NAME} version 2 registered; alias challenger" in worse.stdout
    assert "kept from champion by" in worse.stdout
    assert re.search(
        r"(fail|can't tell): WAR minus champion \(version 1\) -0\.\d+ to [+-]0\.\d+ \(95%\),"
        r" needs more than -0\.05",
        worse.stdout,
    )
    assert worse.returncode == 3
    assert "error: not every gate is passed, or no version was registered" in worse.stderr
    assert aliases(scratch) == {"challenger": "2", "champion": "1"}


@pytest.mark.slow
def test_promotion_and_rollback_by_hand_stand(
    scratch: Scratch, worse: subprocess.CompletedProcess[str]
) -> None:
    refused = scratch.erv("promote", "2", check=False)
    assert refused.returncode == 1
    assert "version 2 did not pass" in refused.stderr
    assert "WAR minus champion" in refused.stderr
    for blank in ((), ("--reason", "  ")):
        refused = scratch.erv("promote", "2", "--force", *blank, check=False)
        assert "--force needs a --reason" in refused.stderr
    assert aliases(scratch)["champion"] == "1"
    forced = scratch.erv("promote", "2", "--force", "--reason", "better on calls").stdout
    assert re.search(
        r"version 2 is now the champion; it was version 1, since \S+Z, .+; \d \w+ overridden", forced
    )
    registry = f"registry: MLflow at {scratch.environment.mlflow_uri}"
    assert forced.splitlines()[-1] == registry
    back = scratch.erv("rollback", "--reason", "worse after all").stdout
    assert back.splitlines()[-1] == registry
    assert "version 1 is the champion again; it was version 2, since" in back
    listed = scratch.erv("champions").stdout.split("\nversion ")
    began, second, *more = (" ".join(part.split()) for part in listed)  # long lines are broken
    me = re.escape(who(scratch.folder))
    assert re.fullmatch(rf"version 1 since \S+Z, gates by {me}", began)
    assert re.match(
        rf"2 since \S+Z, promote by {me}: better on calls \d gates? overridden: .*WAR minus",
        second,
    )
    assert re.fullmatch(rf"1 since \S+Z, rollback by {me}: worse after all", more[0])
    published = scratch.erv("publish", "--require-gates", "--require-lineage", check=False)
    assert published.returncode == 3
    assert published.stderr.splitlines()[1:] == ["error: not every gate is passed"]
    assert aliases(scratch)["champion"] == "1"
    result = scratch.erv("rollback", check=False)
    assert "there is no previous champion" in result.stderr
    assert "has no version or alias '99'" in scratch.erv("promote", "99", check=False).stderr


@pytest.mark.slow
def test_a_version_is_registered_only_once_its_outputs_are_stored(scratch: Scratch, first: str) -> None:
    """It was registered with links that were broken until somebody ran `dvc push`."""
    versions = len(client_of(scratch.environment).search_model_versions(f"name='{NAME}'"))
    scratch.control("quality", "57 57 stored")
    scratch.python("-m", "dvc", "repro", "-q")
    (out,) = read_lock_entries(scratch.folder / "dvc.lock")["register"]["outs"]
    listing = scratch.folder / ".dvc/cache/files/md5" / out["md5"][:2] / out["md5"][2:]
    elsewhere = scratch.folder / "listing"
    listing.rename(elsewhere)
    result = scratch.erv("publish", check=False)
    assert result.returncode == 1
    assert f"error: nothing was registered, as DVC's remote still lacks {out['path']} of" in result.stderr
    assert len(client_of(scratch.environment).search_model_versions(f"name='{NAME}'")) == versions
    elsewhere.rename(listing)
    result = scratch.erv("publish")
    assert "storing the outputs that DVC's remote lacks" in result.stderr
    assert len(client_of(scratch.environment).search_model_versions(f"name='{NAME}'")) == versions + 1
    traced = scratch.erv("lineage", f"{NAME}@challenger").stdout
    assert "BROKEN" not in traced
    assert f"{out['path']} (md5 {out['md5']}" in traced
    assert "storing" not in scratch.erv("publish").stderr, "all is there"


@pytest.mark.slow
def test_other_clips_are_no_comparison(scratch: Scratch, first: str) -> None:
    scratch.control("quality", "58 58 other")
    scratch.python("-m", "dvc", "repro", "-q")
    output = scratch.erv("publish").stdout
    assert "can't tell: WAR minus champion: the champion was not evaluated on the same clips" in output
    assert "can't be evaluated anew, as dvc.lock has no command of evaluate@erv that says how" in output
    assert "`erv promote --force --reason TEXT` decides without a comparison" in output
    assert aliases(scratch)["champion"] == "1"


@pytest.mark.slow
def test_another_judge_is_no_comparison(scratch: Scratch, first: str) -> None:
    scratch.control("quality", "59 59 judge")
    scratch.python("-m", "dvc", "repro", "-q")
    output = scratch.erv("publish").stdout
    assert "WAR minus champion: the champion had a different judge or different decoding" in output
    assert aliases(scratch)["champion"] == "1"


def test_a_changed_bundle_is_refused(scratch: Scratch, first: str) -> None:
    path = scratch.folder / "models/candidate/card.md"
    text = path.read_text()
    path.unlink()  # may be a link into the cache
    path.write_text("better than it is")
    result = scratch.erv("publish", check=False)
    path.write_text(text)
    assert result.returncode == 1
    assert "card.md does not match bundle.json" in result.stderr


def test_a_version_is_promoted_with_the_files_that_it_has_now(scratch: Scratch, first: str) -> None:
    """Its gates were passed when it was published; the code that it is served by was changed in S3 since."""
    store, client = open_store(scratch.environment), client_of(scratch.environment)
    place = Place(scratch.environment, client, client.get_model_version(NAME, "1"))
    uri = place.of("code/erv/answering/predictor.py").partition("(")[2].removesuffix(")")
    code = store.read(uri)
    client.delete_registered_model_alias(NAME, "champion")
    try:
        store.write(code + b"\n", uri)
        refused = scratch.erv("promote", "1", check=False)
    finally:
        store.write(code, uri)
    assert refused.returncode == 1
    assert "version 1 did not pass 1 of its gates; promote it in spite of that" in refused.stderr
    named = rf"fail: lineage: \d+ links checked, 1 broken \(served files\).*{re.escape(uri)}\): changed since"
    assert re.search(named, refused.stderr), refused.stderr
    assert "champion" not in aliases(scratch)
    assert "version 1 is now the champion" in scratch.erv("promote", "1").stdout


def test_gates_of_the_shipped_parameters_are_understood(root: Path) -> None:
    gates = yaml.safe_load((root / "params.yaml").read_text())["register"]["gates"]
    assert {gate.get("against") for gate in gates} == {None, "r1_omni", "champion"}
