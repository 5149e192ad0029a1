"""What is said of the stages below the one that wrote a clip's manifest, or an output."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from erv.environment import load_environment
from erv.lineage.node import Node
from erv.lineage.trace import Provenance
from erv.manifest import write_manifest
from erv.settings import load_settings
from tests.support.paths import ROOT
from tests.unit.lineage.test_clips import ROW

MANIFEST = "data/manifest/mafw.parquet"
MD5 = "a" * 32
STAGES = {
    "ingest@mafw": {"cmd": "x", "outs": [{"path": MANIFEST, "md5": MD5}]},
    "extract@mafw": {
        "cmd": "x",
        "deps": [{"path": MANIFEST, "md5": MD5}],
        "outs": [{"path": "data/shards/mafw", "md5": "b" * 32}],
    },
    "evaluate@erv": {"cmd": "x", "deps": [{"path": "data/shards/mafw", "md5": "b" * 32}]},
}


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/manifest").mkdir(parents=True)
    write_manifest([ROW], tmp_path / MANIFEST)
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": STAGES}))
    return tmp_path


def sentences(node: Node) -> list[str]:
    return [*node.facts, *(fact for child in node.children for fact in sentences(child))]


def test_stages_below_a_clip_s_manifest_are_not_said_to_use_the_clip() -> None:
    """A clip of training is in no evaluation, which reads the same data set."""
    settings = load_settings(ROOT / "params.yaml")
    said = sentences(Provenance(load_environment(), settings).trace("mafw/00019"))
    assert [one for one in said if "evaluate@erv" in one] == [
        "downstream of ingest@mafw: evaluate@erv, extract@mafw"
    ]
    assert not [one for one in said if re.search(r"\bused by\b", one)]


def test_stages_below_an_output() -> None:
    said = sentences(Provenance(load_environment(), None).trace("b" * 32))
    assert "downstream of extract@mafw: evaluate@erv" in said
