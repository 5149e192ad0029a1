"""A candidate that people must prefer waits for the report of a study, and becomes champion by it."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from erv.environment import Environment
from erv.files import sha256_of_file
from erv.study.answers.connection import Answerbase, database_url
from erv.study.plan import Study, read_key, read_study
from erv.study.simulation import Model, simulate
from tests.integration.scratch import Scratch
from tests.integration.test_registry import CANDIDATE, PIPELINE
from tests.support.large_study import write_large_study
from tests.support.tiny_bundle import write_models

pytestmark = [pytest.mark.integration, pytest.mark.slow]

NAME = f"policy-{uuid.uuid4().hex[:8]}"
GATE = {"metric": "preference", "study": "pilot", "against": "r1_omni", "minimum": 0.0}


@pytest.fixture(scope="module")
def scratch(stack: Environment, tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    scratch = Scratch(tmp_path_factory.mktemp("people"), stack)
    params, yaml = scratch.folder / "params.yaml", YAML()
    content = yaml.load(params.read_text().replace("emotion-policy", NAME))
    content["register"]["gates"].append(GATE)
    with params.open("w") as stream:
        yaml.dump(content, stream)
    (scratch.folder / "dvc.yaml").write_text(PIPELINE)
    (scratch.folder / "candidate.py").write_text(CANDIDATE)
    write_models(scratch.folder / "inputs")
    scratch.control("quality", "50 50")
    return scratch


def study_of(scratch: Scratch) -> Study:
    """A study of the candidate's predictions and of those that it is compared with."""
    other = scratch.folder / "eval/r1_omni/predictions.parquet"
    other.parent.mkdir(parents=True)
    shutil.copyfile(scratch.folder / ".erv/work/r1_omni/predictions.parquet", other)
    paths = {"erv": scratch.folder / "models/candidate/predictions.parquet", "r1_omni": other}
    digests = {policy: sha256_of_file(path) for policy, path in paths.items()}
    folder = scratch.folder / "studies/pilot"
    write_large_study(folder, policies=["erv", "r1_omni"], clips=20, raters=6, ratings=False, digests=digests)
    return read_study(folder)


def test_people_decide(scratch: Scratch) -> None:
    said = scratch.erv("run").stdout
    assert "kept from champion by 1 of" in said
    assert "can't tell: preference over r1_omni (study pilot): there is no report of study pilot" in said
    study = study_of(scratch)
    base = Answerbase(database_url(scratch.folder))
    simulate(base, study, read_key(study), Model({"erv": 1.5, "r1_omni": 0.0}), raters=6, seed=1)
    base.close()
    scratch.erv("study", "export", "pilot")
    assert "erv preferred to r1_omni" in scratch.erv("study", "report", "pilot", "--without-judges").stdout
    said = scratch.erv("publish").stdout
    assert "all gates hold: it is the champion" in said
    assert Path(scratch.folder / "studies/pilot/report.dvc").is_file()


def test_a_gate_that_came_later_waits_for_a_run(scratch: Scratch) -> None:
    params = scratch.folder / "params.yaml"
    yaml = YAML()
    content = yaml.load(params.read_text())
    content["register"]["gates"].append({**GATE, "minimum": -0.1})
    with params.open("w") as stream:
        yaml.dump(content, stream)
    said = scratch.erv("publish", "--require-gates", check=False)
    assert said.returncode == 3
    assert "register (register.gates: 1 added); outputs and metrics are from before" in said.stderr
    assert "`erv run` runs these stages" in said.stderr
    assert "champion in spite of 1 of" in said.stdout
    assert "(study pilot): the candidate was made before params.yaml had this gate; `erv run`" in said.stdout
    assert "all gates hold" not in said.stdout
    said = scratch.erv("run").stdout
    assert f"{NAME} version 2 registered" in said
    assert "preference over r1_omni" not in said  # both are decided, and passed
