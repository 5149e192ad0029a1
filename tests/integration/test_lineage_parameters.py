"""A version whose data set was taken out of `params.yaml` between the run and the publication."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from erv.commands.lineage import command
from erv.environment import Environment
from erv.lineage.entries import bundle_in
from erv.lineage.served import Place
from erv.storage.store import open_store
from erv.tracking.lock_entries import client_of
from tests.support.lineage_pipeline import NAME, PIPELINE, LineagePipeline

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def scratch(stack: Environment, tmp_path_factory: pytest.TempPathFactory) -> LineagePipeline:
    client = client_of(stack)
    for model in client.search_registered_models():  # of other tests: answers are over all versions
        client.delete_registered_model(model.name)
    pipeline = LineagePipeline(tmp_path_factory.mktemp("parameters"), stack)
    definitions = PIPELINE.replace("[mafw, reasoning]", "'${datasets}'")
    (pipeline.folder / "dvc.yaml").write_text(definitions)
    pipeline.run("t1")
    path = pipeline.folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["datasets"].remove("mafw")
    params["roles"] |= {"train": ["dfew"], "test": ["dfew"]}
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    assert pipeline.publish().version == "1"
    return pipeline


@pytest.fixture
def elsewhere(scratch: LineagePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, value in scratch.environment.variables().items():
        monkeypatch.setenv(name, value)
    return tmp_path


def test_withdrawn_clips_of_it_affect_the_version(elsewhere: Path) -> None:
    """It said that nothing was affected, and that `dvc.lock` had no manifest of the data set."""
    (elsewhere / "list.txt").write_text("mafw/t1\n")
    result = CliRunner().invoke(command, ["--withdrawn", "list.txt", "--json"])
    assert result.exit_code == 3, result.output
    (version,) = json.loads(result.stdout)["versions"]
    assert version["used"] == [{"role": "learned", "stage": "grpo@erv", "clips": ["mafw/t1"]}]
    assert version["unread"] == []
    assert not [sentence for sentence in version["unknown"] if "manifest" in sentence]


def test_its_record_has_every_stage_that_it_came_from(scratch: LineagePipeline) -> None:
    (version,) = client_of(scratch.environment).search_model_versions(f"name='{NAME}'")
    uri = Place(scratch.environment, client_of(scratch.environment), version).of("lineage.json")
    where = uri.partition("(")[2].rstrip(")")
    stages = json.loads(open_store(scratch.environment).read(where))["stages"]
    assert {"ingest@mafw", "extract@mafw", "grpo@erv"} <= stages.keys()


def test_its_tree_shows_where_the_data_came_from(elsewhere: Path) -> None:
    result = CliRunner().invoke(command, [f"{NAME}/1"])
    assert "ingest@mafw  lock entry" in result.output
    assert "BROKEN" not in result.output


def test_what_a_run_before_it_left_in_the_lock_is_no_part_of_it(scratch: LineagePipeline) -> None:
    path = scratch.folder / "dvc.lock"
    before = path.read_text()
    document = yaml.safe_load(before)
    left = {"cmd": "x", "outs": [{"path": "data/manifest/old.parquet", "md5": "0" * 32}]}
    document["stages"] = {"ingest@old": left, **document["stages"]}
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    try:
        with contextlib.chdir(scratch.folder):
            assert "ingest@old" not in bundle_in(Path())
            assert "ingest@mafw" in bundle_in(Path())
    finally:
        path.write_text(before)
