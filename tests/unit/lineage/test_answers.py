"""Answers as text, JSON and page."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner

from erv.commands.lineage import command
from erv.errors import DataError, RegistryError, StackError
from erv.lineage.links import Link
from erv.lineage.membership import LeftOut, Used, VersionRoles
from erv.lineage.node import ABOVE, Node, answer, summary
from erv.lineage.page import boxes_of, page
from erv.lineage.published import Published
from erv.lineage.runs import is_flow_run
from erv.lineage.trace import _split
from erv.lineage.withdrawn import Withdrawn, read_ids
from tests.conftest import ROOT

SCHEMAS = ROOT / "src/erv/lineage/schemas"


def schema(name: str) -> dict:
    return json.loads((SCHEMAS / f"{name}.json").read_text())


def tree() -> Node:
    """register is made from grpo and train_erv, and grpo from train_erv too."""
    shared = Node("train_erv  lock entry 1", kind="stage", values={"parameters": {"seed": 101}})
    above = Node("train_erv  lock entry 1", [ABOVE], kind="stage")
    grpo = Node("grpo@erv  lock entry 2", kind="stage", children=[shared])
    lost = Link("models/candidate", False, "s3://b/<files>/x: missing; run `dvc push`")
    return Node("m version 1", ["a & b"], [lost], [grpo, above], kind="version")


def test_the_graph_has_every_node_once_and_below_what_is_made_from_it() -> None:
    boxes = {box.node.title.split("  ")[0]: box for box in boxes_of(tree())}
    assert {title: box.rank for title, box in boxes.items()} == {
        "m version 1": 0,
        "grpo@erv": 1,
        "train_erv": 2,
    }
    assert boxes["m version 1"].above == [boxes["grpo@erv"].number, boxes["train_erv"].number]
    assert boxes["train_erv"].parameters == {"seed": 101}


def test_broken_links_are_named_where_they_are_counted() -> None:
    found = tree()
    assert summary(found) == "1 link checked, 1 broken (models/candidate), 0 not verifiable from here"
    found.links += [Link(f"report/{n}", False, "missing") for n in range(4)]
    assert "5 broken (models/candidate, report/0, report/1 and 2 more)" in summary(found)


def test_a_mention_that_comes_first_gives_way_to_the_node() -> None:
    found = tree()
    found.children.reverse()
    box = next(box for box in boxes_of(found) if box.node.title.startswith("train_erv"))
    assert box.node.facts == []
    assert box.rank == 2


def test_the_page_is_whole_and_escaped() -> None:
    text = page("m/1", tree())
    assert "a &amp; b" in text
    assert "s3://b/&lt;files&gt;/x: missing" in text
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) == {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in text
    assert page("m/1", tree()) == text


def test_the_answer_has_its_schema() -> None:
    document = answer("m/1", tree())
    jsonschema.validate(document, schema("lineage"))
    assert document["links"] == {"checked": 1, "broken": 1, "unverifiable": 0}


def withdrawn(**changed: tuple) -> Withdrawn:
    clip = ("mafw", "1")
    roles = {
        "used": (Used("learned", "sft", (clip,)),),
        "left_out": (LeftOut("learned", "grpo@erv", clip, "excluded: same content"),),
        "unknown": ("base: not recorded",),
        "unread": (),
    }
    unknown = changed.pop("ids", ())
    version = VersionRoles(Published("m", "3", ("champion",), {}), **{**roles, **changed})
    return Withdrawn(1 + len(unknown), (clip,), unknown, (version,))


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({}, 3),
        ({"used": ()}, 0),
        ({"ids": ("mafw/0",)}, 4),
        ({"used": (), "ids": ("mafw/0",)}, 4),
        ({"unread": ("lost",)}, 4),
        ({"unread": ("lost",), "used": ()}, 4),
    ],
)
def test_exit_codes(changed: dict, code: int) -> None:
    found = withdrawn(**changed)
    assert found.exit_code == code
    jsonschema.validate(found.document(), schema("withdrawn"))


def test_withdrawn_as_text() -> None:
    assert list(withdrawn(ids=("mafw/0",)).lines()) == [
        "m version 3 (champion)",
        "  learned (sft): mafw/1",
        "  not learned (grpo@erv): mafw/1, excluded: same content",
        "not recorded: base: not recorded: m/3",
        "unknown: mafw/0",
        "1 of 1 versions used 1 of 1 clips; 1 of 2 ids are unknown",
    ]


def test_lists_of_ids(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes("\ufeffmafw/1\r\n\r\n  a b \nmafw/1\n".encode())
    assert read_ids(path) == ["mafw/1", "a b"]
    path.write_text("\n \n")
    with pytest.raises(DataError, match="has no clip id"):
        read_ids(path)
    path.write_bytes(b"\xff\xfe1")
    with pytest.raises(DataError, match="not UTF-8 text"):
        read_ids(path)
    with pytest.raises(DataError, match="not found"):
        read_ids(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("emotion-policy/3", ("emotion-policy", "3")),
        ("emotion-policy@champion", ("emotion-policy", "champion")),
        ("a/b@c", ("a/b", "c")),
        ("champion", ("", "")),
        ("@x", ("", "")),
        ("x/", ("", "")),
    ],
)
def test_names_of_versions(text: str, parts: tuple[str, str]) -> None:
    assert _split(text) == parts


def test_ids_of_flow_runs() -> None:
    assert is_flow_run("00000000-0000-4000-8000-000000000000")
    assert not is_flow_run("0" * 32)
    assert not is_flow_run("mafw/1")


@pytest.mark.parametrize("words", [[], ["x", "--withdrawn", "y"], ["--withdrawn", "y", "--verify"]])
def test_what_can_not_be_asked_at_once(words: list[str]) -> None:
    assert CliRunner().invoke(command, words).exit_code == 2


def test_without_a_registry_no_clip_is_called_unused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("mafw/1\n")
    result = CliRunner().invoke(command, ["--withdrawn", "list.txt"])
    assert isinstance(result.exception, StackError)
    assert "no MLflow server is configured" in str(result.exception)


def test_a_number_without_a_registry_is_no_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    result = CliRunner().invoke(command, ["3"])
    assert isinstance(result.exception, RegistryError)
    assert "but no MLflow server is configured" in str(result.exception)
