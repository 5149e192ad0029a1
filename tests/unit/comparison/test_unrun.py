"""What the candidate was made with and the workspace no longer has."""

from __future__ import annotations

from pathlib import Path

import yaml

from erv.comparison.unrun import gone_stages, other_data
from tests.unit.pipeline.test_ancestry import lock

STAGES = {
    "ingest": {"matrix": {"dataset": "${datasets}"}, "cmd": "x"},
    "extract": {"matrix": {"dataset": "${datasets}"}, "cmd": "x"},
    "leakage": {"cmd": "x"},
    "grpo": {"matrix": {"variant": ["erv"]}, "cmd": "x"},
    "register": {"cmd": "x"},
}


def test_stages_that_the_parameters_of_now_leave_out_are_named(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES}))
    (tmp_path / "params.yaml").write_text("datasets: [mafw]\n")
    said = "made by stages that are no longer in dvc.yaml: extract@dfew, ingest@dfew"
    assert list(gone_stages(lock("mafw", "dfew"), tmp_path)) == [said]
    assert list(gone_stages(lock("mafw"), tmp_path)) == []


def test_stages_that_read_what_has_been_made_anew_since_are_named() -> None:
    """As after `erv run --force grpo@erv`, and after an ingestion alone; `dvc.lock` tells."""
    found = lock("mafw", "dfew")
    assert list(other_data(found)) == []
    found["grpo@erv"]["outs"][0]["md5"] = "q.dir"
    said = "not run with these data and models: {}; outputs and metrics are from before"
    assert list(other_data(found)) == [said.format("register (models/policy/erv)")]
    found["ingest@mafw"]["outs"][0]["md5"] = "new"  # extract read the file, leakage its folder
    paths = "data/manifest/mafw.parquet, data/manifest, models/policy/erv"
    assert list(other_data(found)) == [said.format(f"extract@mafw, leakage, register ({paths})")]
