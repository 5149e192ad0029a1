"""What belongs to which model on a Prefect server that teams share."""

from __future__ import annotations

import re

import yaml

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
