"""What belongs to which model on a Prefect server that teams share."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from erv.errors import StackError
from erv.stack.deployments import DEPLOYED_BY, declared
from flows.team import block_of, tag_of
from tests.support.paths import ROOT


def test_each_model_has_a_block_of_its_own() -> None:
    assert block_of("emotion-policy") == "erv-notify-emotion-policy"
    models = ("their_model", "their-model", "Their model", "\u00fc")
    names = {block_of(model) for model in models}
    assert len(names) == len(models)
    assert all(re.fullmatch("[a-z0-9-]+", name) for name in names), "as Prefect demands"


def test_runs_of_deployments_have_the_tag_of_those_of_erv_run() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    filled = [item["tags"][0].replace("{{ $ERV_MODEL }}", "their_model") for item in deployments]
    assert filled == [tag_of("their_model")] * len(deployments)


def test_deployments_say_who_made_them_under_the_name_that_is_asked_for() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert [item["tags"][1] for item in deployments] == [f"{DEPLOYED_BY}{{{{ $ERV_WHO }}}}"] * len(
        deployments
    )
    assert declared(ROOT) == [
        "train/local",
        "train/distributed",
        "evaluate/any",
        "promote/model",
        "retrain/scheduled",
        "sweep/local",
        "promote/local",
    ]


def test_a_damaged_prefect_yaml_is_named(tmp_path: Path) -> None:
    assert declared(tmp_path) == [], "a worker may serve other deployments"
    (tmp_path / "prefect.yaml").write_text("deployments:\n  - name: local\n")
    with pytest.raises(StackError, match=r"prefect.yaml: damaged .*; restore it from git"):
        declared(tmp_path)
