"""What a stage read that its `dvc.lock` doesn't account for keeps a version from passing the gate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from erv.environment import Environment
from erv.lineage.gate import lineage_verdict
from erv.lineage.node import Node, broken, unverifiable
from erv.lineage.stages import StageTrees
from erv.register.verdict import CANT_TELL, FAIL, PASS
from tests.support.paths import ROOT
from tests.unit.pipeline.test_ancestry import data_set, entry, folder

MANIFEST = "data/manifest/dfew.parquet"


def tree(workspace: Path, lock: dict[str, Any], name: str) -> Node:
    """The tree of a stage; no store is asked for its outputs, and no run made its entries."""
    found = StageTrees(Environment(workspace)).node(lock, name, workspace, set())
    for node in found.walk():
        node.links = [
            link
            for link in node.links
            if link.detail != "no object store is configured" and not link.what.startswith("lock entry of ")
        ]
    return found


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "dvc.yaml").write_bytes((ROOT / "dvc.yaml").read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    ("read", "what"),
    [
        ({MANIFEST: "m"}, MANIFEST),
        ({"data/sentences.parquet": "m"}, "data/sentences.parquet"),
        ({"eval": "m.dir"}, "eval"),
        ({"models/policy/sft/config.json": "m"}, "models/policy/sft/config.json"),
        ({"data/manifest": folder("data/manifest", "mafw.parquet", "dfew.parquet")}, "data/manifest"),
    ],
)
def test_an_input_that_no_entry_wrote_is_a_broken_link(
    workspace: Path, read: dict[str, str], what: str
) -> None:
    node = tree(workspace, {**data_set("mafw"), "last": entry(read, {})}, "last")
    assert [link.what for link in broken(node)] == [what]
    verdict = lineage_verdict(node)
    assert verdict.outcome == FAIL
    assert what in verdict.reason


def test_without_a_dvc_yaml_nobody_knows_who_wrote_an_input(tmp_path: Path) -> None:
    node = tree(tmp_path, {"last": entry({"data/sentences.parquet": "m"}, {})}, "last")
    assert [link.what for link in unverifiable(node)] == ["data/sentences.parquet"]
    assert lineage_verdict(node).outcome == CANT_TELL


def test_an_input_that_was_written_again_is_a_broken_link(workspace: Path) -> None:
    node = tree(workspace, {**data_set("dfew"), "last": entry({MANIFEST: "before"}, {})}, "last")
    (link,) = broken(node)
    assert link.detail.startswith("read as before, but ingest@dfew wrote dfew.parquet")


def test_code_sources_prompts_and_what_lies_in_the_repository_are_given(workspace: Path) -> None:
    read = {"src/erv/files.py": "c", "data/prompts/own.txt": "p", "data/judge_texts/policies.csv": "j"}
    node = tree(workspace, {"sft": entry(read, {}, policy={"prompt": "data/prompts/own.txt"})}, "sft")
    assert node.links == []
    assert "not made by a stage: data/prompts/own.txt  md5 p" in node.facts
    assert not [fact for fact in node.facts if "src/erv/files.py" in fact]


def test_what_the_entries_account_for_has_no_fault(workspace: Path) -> None:
    names = ("dfew.parquet", "mafw.parquet")
    lock = {**data_set("mafw"), **data_set("dfew"), **data_set("old")}
    lock["last"] = entry({"data/manifest": folder("data/manifest", *names)}, {})
    node = tree(workspace, lock, "last")
    assert not broken(node)
    assert sorted(child.values["stage"] for child in node.children) == ["ingest@dfew", "ingest@mafw"]
    assert lineage_verdict(node).outcome == PASS
