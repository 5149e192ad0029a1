"""What is answered about withdrawn clips when the record of the base checkpoint can't be read."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from erv.environment import Environment
from erv.errors import ExitCode
from erv.files import md5_of_file
from erv.lineage.contents import TRAINED_ON
from erv.lineage.membership import Membership
from erv.lineage.published import Published
from erv.lineage.used import used_nodes
from erv.lineage.withdrawn import Withdrawn, find_withdrawn
from erv.pinning import pin

BASE = "data/sources/base.lock.json"
MANIFEST = "data/manifest/mafw.parquet"
RECORD = "model,dataset,clip_id\npolicy,mafw,t2\n"


def workspace(folder: Path, record: str | None) -> tuple[Environment, Path]:
    """A workspace with a manifest of t1 and t2 in DVC's cache and a pinned base checkpoint in a folder."""
    base = folder / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    if record is not None:
        (base / TRAINED_ON).write_text(record)
    (folder / BASE).parent.mkdir(parents=True)
    pin("base", str(base), None).save(folder / BASE)
    table = folder / "manifest.parquet"
    pq.write_table(pa.table({"clip_id": ["t1", "t2"], "split": ["train", "train"]}), table)
    md5 = md5_of_file(table)
    cached = folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    cached.parent.mkdir(parents=True)
    table.rename(cached)
    return Environment(folder), base


def asked(environment: Environment) -> Withdrawn:
    """The answer about t1 of a version that took its base as it is and trained on nothing."""
    (cached,) = (environment.workspace / ".dvc/cache/files/md5").glob("*/*")
    manifest = {"path": MANIFEST, "md5": cached.parent.name + cached.name}
    base = {"path": BASE, "md5": md5_of_file(environment.workspace / BASE)}
    policy = {"path": "models/policy/sft", "md5": "0" * 32 + ".dir"}
    lock = {
        "ingest@mafw": {"deps": [], "outs": [manifest]},
        "sft": {"deps": [base], "outs": [policy], "params": {"params.yaml": {"sft": {"max_steps": 0}}}},
        "register": {"deps": [policy], "outs": []},
    }
    versions = [Published("m", "1", (), {}, lock)]
    return find_withdrawn(["mafw/t1"], Membership(environment, versions))


def test_a_record_that_can_be_read(tmp_path: Path) -> None:
    found = asked(workspace(tmp_path, RECORD)[0])
    assert (found.exit_code, found.versions[0].unread) == (ExitCode.DONE, ())


def test_a_base_without_a_record_says_nothing_and_nothing_is_lost(tmp_path: Path) -> None:
    found = asked(workspace(tmp_path, None)[0])
    assert (found.exit_code, found.versions[0].unread) == (ExitCode.DONE, ())
    assert any(f"has no {TRAINED_ON}" in sentence for sentence in found.versions[0].unknown)


def test_a_record_that_was_edited_after_pinning(tmp_path: Path) -> None:
    environment, base = workspace(tmp_path, RECORD)
    (base / TRAINED_ON).write_text(RECORD.replace("t2", "t3"))
    unread(asked(environment), "content has changed")


def test_a_base_whose_folder_is_not_here(tmp_path: Path) -> None:
    environment, base = workspace(tmp_path, RECORD)
    shutil.rmtree(base)
    unread(asked(environment), "file not found")


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        ("model,clip_id\npolicy,t2\n", "lacks the columns dataset"),
        (f"{RECORD}policy,mafw\n", "line 3 lacks values"),
        ("model,dataset,clip_id\npolicy,mafw,\xe9\n", "not UTF-8 text"),
        (f"{RECORD}Policy,mafw,t1\n", "trained_on.csv: line 3: model 'Policy', expected policy or encoder"),
        (f"{RECORD}policy ,mafw,t1\n", "line 3: model 'policy ', expected policy or encoder"),
        (f"{RECORD}vision,mafw,t1\n", "line 3: model 'vision', expected policy or encoder"),
        ("model,dataset,clip_id\nboth,mafw,t1\n", "line 2: model 'both', expected policy or encoder"),
        (f"{RECORD},mafw,t1\n", "line 3: model '', expected policy or encoder"),
        (f"{RECORD}policy, mafw,t1\n", "line 3: dataset ' mafw', expected lower-case letters"),
        (f"{RECORD}policy,MAFW,t1\n", "line 3: dataset 'MAFW', expected lower-case letters"),
        (f"{RECORD}policy,mafw, t1\n", "line 3: clip_id ' t1', expected an id without spaces"),
        (f"{RECORD}policy,mafw,\n", "line 3: clip_id '', expected an id"),
        (f"{RECORD}policy,mafw,t0,t1\n", "line 3: more values than columns (from 't1' on)"),
        (f'model,dataset,clip_id\npolicy,mafw,"{"x" * 200_000}"\n', "not a table (field larger than"),
    ],
)
def test_a_record_that_is_no_record(tmp_path: Path, record: str, fault: str) -> None:
    environment, base = workspace(tmp_path, RECORD)
    (base / TRAINED_ON).write_bytes(record.encode("latin-1"))
    pin("base", str(base), None).save(tmp_path / BASE)
    unread(asked(environment), fault)


def test_a_version_of_an_unrecorded_base_is_not_said_to_have_used_nothing(tmp_path: Path) -> None:
    found = asked(workspace(tmp_path, None)[0])
    (node,) = used_nodes(found.versions, {("mafw", "t1")})
    assert "did not use it" not in node.facts
    assert node.facts[0] == "no recorded use of it"
    assert any(fact.startswith("not recorded: base: ") for fact in node.facts)
    assert "may have used them, as not all is recorded: m/1" in found.lines()


def test_a_version_whose_records_are_whole_did_not_use_it(tmp_path: Path) -> None:
    found = asked(workspace(tmp_path, RECORD)[0])
    found = dataclasses.replace(found, versions=(dataclasses.replace(found.versions[0], unknown=()),))
    assert used_nodes(found.versions, {("mafw", "t1")})[0].facts == ["did not use it"]
    assert not [line for line in found.lines() if line.startswith("may have")]


def unread(found: Withdrawn, why: str) -> None:
    (version,) = found.versions
    assert found.unknown == ()
    assert found.exit_code == ExitCode.LINEAGE
    assert why in version.unread[0]
    assert not [sentence for sentence in version.unknown if sentence.startswith("base: ")]
