"""A published version outside the pipeline: in an environment of its own, and asked about whole folders."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jsonschema
import pyarrow.parquet as pq
import pytest
import yaml

from erv.environment import Environment, child_environment
from erv.files import sha256_of
from erv.storage.store import open_store
from erv.tracking.lock_entries import client_of
from tests.conftest import ROOT
from tests.integration.scratch import Scratch, wait_until
from tests.integration.test_registry import CANDIDATE, PIPELINE
from tests.support.tiny_bundle import write_clip, write_models

pytestmark = pytest.mark.integration

NAME = "published-policy"
COLUMNS = ["clip", "sha256", "answer", "explanation", "agreement", "completion", "error"]
ANSWER = """
import sys
import mlflow, pandas as pd

table = mlflow.pyfunc.load_model(sys.argv[1]).predict(pd.DataFrame({"clip": ["clip.mp4", "gone.mp4"]}))
assert isinstance(table["completion"][0], str), table["error"][0]
assert table["error"][1] == "no such file below the served folder"
print("answered by", sys.modules["erv"].__file__)
"""


@pytest.fixture(scope="module")
def scratch(stack: Environment, tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    """A workspace whose candidate is version 1."""
    scratch = Scratch(tmp_path_factory.mktemp("published"), stack)
    (scratch.folder / "dvc.yaml").write_text(PIPELINE)
    (scratch.folder / "candidate.py").write_text(CANDIDATE)
    parameters = scratch.folder / "params.yaml"
    parameters.write_text(parameters.read_text().replace("model_name: emotion-policy", f"model_name: {NAME}"))
    write_models(scratch.folder / "inputs")
    scratch.control("quality", "50 50")
    scratch.python("-m", "dvc", "repro", "-q")
    assert f"{NAME} version 1 registered" in scratch.erv("publish").stdout
    return scratch


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips, of two days")
    (folder / "monday").mkdir()
    write_clip(folder / "monday/b.mp4")
    write_clip(folder / "a.MP4", seed=1)
    write_clip(folder / "muted.mp4", loudness=0.0)
    (folder / "broken.mp4").write_bytes(b"\x00\x00\x00\x18ftypmp42" + bytes(200))
    (folder / "list.csv").write_text("clip\n")
    (folder / "._a.mp4").write_bytes(b"by a file manager")
    return folder


@pytest.mark.slow
def test_every_clip_of_a_folder_has_a_row(scratch: Scratch, clips: Path, tmp_path: Path) -> None:
    output = tmp_path / "answers.parquet"
    said = scratch.erv("predict", str(clips), "--model", f"{NAME}/1", "--output", str(output)).stdout
    assert "left out 2 files that are no videos" in said
    assert f"{NAME} version 1 was asked about 4 clips\n2 could not be answered" in said
    table = pq.read_table(output)
    assert table.column_names == COLUMNS
    rows = {row["clip"]: row for row in table.to_pylist()}
    assert list(rows) == ["a.MP4", "broken.mp4", "monday/b.mp4", "muted.mp4"]
    content = (clips / "monday/b.mp4").read_bytes()
    assert rows["monday/b.mp4"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert isinstance(rows["monday/b.mp4"]["completion"], str)
    assert rows["muted.mp4"]["error"].endswith("found -120 (not_silent)")
    assert rows["muted.mp4"]["completion"] is None
    version = client_of(scratch.environment).get_model_version(NAME, "1")
    assert {key.decode(): value.decode() for key, value in table.schema.metadata.items()} == {
        "erv.model": NAME,
        "erv.version": "1",
        "erv.bundle": version.tags["erv.bundle_hash"],
        "erv.lineage_sha256": version.tags["erv.lineage_sha256"],
    }
    before = output.read_bytes()
    output.unlink()
    said = scratch.erv("predict", str(clips), "--output", str(output), "--model", "1").stdout
    assert "4 clips, 4 of them kept from an earlier run" in said
    assert output.read_bytes() == before


@pytest.mark.slow
def test_a_killed_prediction_goes_on(scratch: Scratch, clips: Path, tmp_path: Path) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for number in range(70):
        shutil.copy(clips / "monday/b.mp4", many / f"{number:02d}.mp4")
    output = tmp_path / "answers.parquet"
    options = ("predict", str(many), "--model", "1", "--output", str(output))
    started = scratch.start(*options)
    kept = scratch.folder / ".erv/predictions"
    before = set(kept.rglob("*.parquet"))
    wait_until(lambda: started.process.poll() is not None or set(kept.rglob("[!.]*.parquet")) - before, 300)
    os.killpg(started.process.pid, signal.SIGKILL)
    started.end()
    assert not output.exists()
    said = scratch.erv(*options).stdout
    assert "70 clips, 64 of them kept from an earlier run" in said
    assert len({row["completion"] for row in pq.read_table(output).to_pylist()}) == 1


@pytest.mark.slow
def test_a_changed_copy_is_fetched_again_and_a_changed_version_refused(
    scratch: Scratch, clips: Path, tmp_path: Path
) -> None:
    options = (str(clips), "--model", "1", "--output", str(tmp_path / "answers.parquet"))
    scratch.erv("predict", *options)
    (copy,) = (scratch.folder / ".erv/versions" / NAME).glob("1-*")
    prompts = copy / "code/erv/prompts.py"
    good = prompts.read_text()
    prompts.write_text("raise SystemExit('not ours')\n")
    scratch.erv("predict", *options)
    assert prompts.read_text() == good
    store, bucket = open_store(scratch.environment), scratch.environment.artifact_bucket
    # Other tests have their models in the same bucket.
    model = client_of(scratch.environment).get_model_version(NAME, "1").source.rpartition("/")[2]
    (stored,) = (
        item.uri
        for item in store.list(f"s3://{bucket}")
        if item.uri.endswith(f"{model}/artifacts/code/erv/prompts.py")
    )
    prompts.write_text("")
    try:
        store.write(b"raise SystemExit('not ours')\n", stored)
        refused = scratch.erv("predict", *options, check=False)
    finally:
        store.write(good.encode(), stored)
    assert refused.returncode == 1
    assert f"error: {NAME} version 1: code/erv/prompts.py: changed since it was registered" in refused.stderr


@pytest.mark.slow
def test_a_version_that_is_none_says_so(scratch: Scratch, clips: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "answers.parquet")
    result = scratch.erv("predict", str(clips), "--model", "7", "--output", output, check=False)
    assert result.returncode == 1
    assert f"{NAME} has no version or alias '7'" in result.stderr


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_version_answers_in_an_environment_of_its_requirements_alone(
    scratch: Scratch, clips: Path, tmp_path: Path
) -> None:
    """It had no `av`: nothing that only the decoding process imports was required."""
    from erv.register.fetched import fetch_version

    client = client_of(scratch.environment)
    version = fetch_version(client.get_model_version(NAME, "1"), scratch.environment)
    python = tmp_path / "venv/bin/python"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    requirements = version.folder / "requirements.txt"
    subprocess.run([str(python), "-m", "pip", "install", "-q", "-r", str(requirements)], check=True)
    served = tmp_path / "served"
    served.mkdir()
    shutil.copy(clips / "monday/b.mp4", served / "clip.mp4")
    variables = child_environment(scratch.environment) | {"ERV_SERVE_ROOT": str(served)}
    variables = {name: value for name, value in variables.items() if not name.startswith("PYTHON")}
    result = subprocess.run(
        [str(python), "-c", ANSWER, f"models:/{NAME}/1"],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "/code/erv/__init__.py" in result.stdout
    installed = subprocess.run(
        [str(python), "-m", "pip", "list", "--format", "json"], capture_output=True, text=True, check=True
    )
    assert "erv" not in {item["name"] for item in json.loads(installed.stdout)}


@pytest.mark.slow
def test_an_exported_version_is_a_policy_and_comes_back_as_external(scratch: Scratch, tmp_path: Path) -> None:
    from erv.policies import load_policy

    folder = tmp_path / "exported"
    said = scratch.erv("export", str(folder), "--model", f"models:/{NAME}/1", "--format", "hf").stdout
    assert f"wrote {NAME} version 1 to {folder}" in said
    assert load_policy(folder, device="cpu").model.config.model_type == "humanomni"
    header, card = (folder / "README.md").read_text().removeprefix("---\n").split("\n---\n", 1)
    assert yaml.safe_load(header)["library_name"] == "transformers"
    version = client_of(scratch.environment).get_model_version(NAME, "1")
    assert version.tags["erv.bundle_hash"] in card
    assert "## Metrics" in card
    assert "pass: WAR minus champion: there was no champion to compare with, needs more than" in card
    assert "open: " not in card
    assert version.description.strip() == card.partition("\n## Use")[0].strip()
    scratch.erv("export", str(tmp_path / "again"), "--model", "1")
    assert sha256_of(tmp_path / "again") == sha256_of(folder)
    refused = scratch.erv("export", str(folder), "--model", "1", check=False)
    assert f"error: {folder}: has something in it already; name a new folder" in refused.stderr

    assert "version 1 registered as external" in scratch.erv("import", str(folder), "--name", "theirs").stdout
    assert "version 1 was already registered" in scratch.erv("import", str(folder), "--name", "theirs").stdout
    found = client_of(scratch.environment).get_registered_model("theirs")
    assert found.aliases == {}
    traced = scratch.erv("lineage", "theirs/1", "--verify").stdout
    assert "external: imported from a folder; what made it is not recorded here" in traced
    assert (
        f"claims: it is a version of {NAME}; bundle {version.tags['erv.bundle_hash']}; started by " in traced
    )
    assert re.search(r"claims: made by .*register.* \(not verified here\)", traced)
    assert "claims: made from " in traced
    page = tmp_path / "lineage.html"
    document = scratch.erv("lineage", "theirs/1", "--json", "--html", str(page)).stdout
    answer = json.loads(document)
    jsonschema.validate(answer, json.loads((ROOT / "src/erv/lineage/schemas/lineage.json").read_text()))
    claims = answer["tree"]["values"]["claims"]
    assert claims["stages"] == json.loads((folder / "lineage.json").read_text())["stages"]
    assert "(not verified here)</li>" in page.read_text()
    assert "0 broken" in traced


@pytest.mark.slow
def test_an_external_version_answers_as_the_one_it_was(scratch: Scratch, clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "exported"
    scratch.erv("export", str(folder), "--model", "1")
    scratch.erv("import", str(folder), "--name", "answering")
    answers = []
    for model in (f"{NAME}/1", "answering/1"):
        output = tmp_path / "answers.parquet"
        scratch.erv("predict", str(clips), "--model", model, "--output", str(output))
        answers.append(pq.read_table(output).to_pylist())
    assert answers[0] == answers[1]
