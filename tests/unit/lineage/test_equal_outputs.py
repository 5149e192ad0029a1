"""Small outputs, such as counts, may have equal bytes where the data differs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from erv.environment import Environment
from erv.lineage.artifacts import Artifacts
from erv.lineage.model_versions import ModelVersions
from erv.lineage.stages import StageTrees
from erv.lineage.trace import Provenance

COUNTS, MINE, OTHERS = "c" * 32, "a" * 32, "b" * 32


def entry(dataset: str, manifest: str) -> dict[str, Any]:
    outs = [
        {"path": f"data/manifest/{dataset}.parquet", "md5": manifest},
        {"path": f"data/plots/{dataset}.csv", "md5": COUNTS},
    ]
    return {"cmd": "true", "outs": outs}


def test_a_version_was_made_from_outputs_only_if_it_has_all_of_them(tmp_path: Path) -> None:
    """One equal file was enough, so that a version was "made from" data that it never saw."""
    environment = Environment(tmp_path)
    versions = ModelVersions(environment, None, Artifacts(environment), StageTrees(environment))
    versions.__dict__["published"] = [SimpleNamespace(number="1", lock={"ingest@mafw": entry("mafw", MINE)})]
    mine = {(out["path"], out["md5"]) for out in entry("mafw", MINE)["outs"]}
    others = {(out["path"], out["md5"]) for out in entry("mafw", OTHERS)["outs"]}
    assert [version.number for version in versions.made_from(mine)] == ["1"]
    assert versions.made_from(others) == []
    assert versions.made_from(set()) == []


def test_every_output_of_a_content_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first one was, which may be that of another data set."""
    monkeypatch.chdir(tmp_path)
    stages = {"ingest@dfew": entry("dfew", OTHERS), "ingest@mafw": entry("mafw", MINE)}
    Path("dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))
    provenance = Provenance(Environment(tmp_path), None)
    node = provenance.trace(COUNTS)
    assert node.title == f"2 outputs of equal content  md5 {COUNTS}"
    assert [child.values["path"] for child in node.children] == ["data/plots/dfew.csv", "data/plots/mafw.csv"]
    assert provenance.trace(MINE).values["path"] == "data/manifest/mafw.parquet"
