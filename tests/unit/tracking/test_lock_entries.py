"""The identity of a lock entry, and the links between entries."""

from __future__ import annotations

import copy

import pytest

from erv.lineage.entries import consumers, differing, producers
from erv.lineage.links import Link
from erv.lineage.node import Node, broken
from erv.pipeline import overlap
from erv.tracking.lock_entries import entry_hash, markdown, run_tag

ENTRY = {
    "cmd": "python -m stages.grpo",
    "deps": [{"path": "data/shards", "hash": "md5", "md5": "a.dir", "size": 3, "nfiles": 2}],
    "params": {"params.yaml": {"grpo.beta": 0.02, "seed": 0}},
    "outs": [{"path": "models/policy/erv", "hash": "md5", "md5": "b.dir", "size": 4}],
}
LOCK = {
    "extract@mafw": {"outs": [{"path": "data/shards/mafw", "md5": "s.dir"}]},
    "ingest@mafw": {"outs": [{"path": "data/manifest/mafw.parquet", "md5": "m"}]},
    "ingest@dfew": {"outs": [{"path": "data/manifest/dfew.parquet", "md5": "d"}]},
    "grpo@erv": {
        "deps": [{"path": "data/shards/mafw", "md5": "s.dir"}, {"path": "data/manifest", "md5": "x.dir"}],
        "outs": [{"path": "models/policy/erv", "md5": "p.dir"}],
    },
}


def changed(*path, value) -> dict:
    entry = copy.deepcopy(ENTRY)
    target = entry
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return entry


@pytest.mark.parametrize(
    "other",
    [
        changed("cmd", value="python -m stages.sft"),
        changed("deps", 0, "md5", value="c.dir"),
        changed("deps", 0, "path", value="data/other"),
        changed("params", "params.yaml", "seed", value=1),
        changed("outs", 0, "md5", value="c.dir"),
    ],
)
def test_what_counts_changes_the_hash(other: dict) -> None:
    assert entry_hash(other) != entry_hash(ENTRY)


def test_what_follows_from_hashes_does_not() -> None:
    assert entry_hash(changed("deps", 0, "size", value=99)) == entry_hash(ENTRY)
    assert entry_hash(dict(reversed(ENTRY.items()))) == entry_hash(ENTRY)


def test_producers_and_consumers_see_through_folders() -> None:
    assert producers(LOCK, "data/manifest") == {"ingest@mafw", "ingest@dfew"}
    assert producers(LOCK, "data/shards/mafw") == {"extract@mafw"}
    assert producers(LOCK, "data/sources/mafw.lock.json") == set()
    assert consumers(LOCK, "ingest@dfew") == {"grpo@erv"}
    assert consumers(LOCK, "grpo@erv") == set()
    assert not overlap("data/shards/mafw2", "data/shards/mafw")


def test_a_dependency_that_was_rebuilt_is_a_broken_link() -> None:
    good, stale = {"path": "data/shards/mafw", "md5": "s.dir"}, {"path": "data/shards/mafw", "md5": "old.dir"}
    assert differing(LOCK, {"extract@mafw"}, good) == []
    checks = differing(LOCK, {"extract@mafw"}, stale)
    assert [check.ok for check in checks] == [False]
    assert "read as old.dir, but extract@mafw wrote s.dir" in checks[0].text()


def test_broken_links_are_found_at_any_depth() -> None:
    bad = Link("x", False, "gone")
    tree = Node("top", links=[Link("y", None, "?")], children=[Node("below", links=[bad])])
    assert broken(tree) == [bad]
    assert list(tree.lines())[-1] == "      BROKEN: x (gone)"


def test_names_of_tags_and_the_table() -> None:
    assert run_tag("grpo@erv") == "erv.run.grpo/erv"
    table = markdown({"grpo@erv": ENTRY}, {"grpo@erv": "run1"}, {"grpo@erv": "unchanged"})
    assert (
        f"| grpo@erv | unchanged | `{entry_hash(ENTRY)[:12]}` | `models/policy/erv` b.dir | run1 |" in table
    )
