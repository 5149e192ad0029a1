"""What is answered about withdrawn clips when the record of the base checkpoint can't be read."""

from __future__ import annotations

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
        (f'model,dataset,clip_id\npolicy,mafw,"{"x" * 200_000}"\n', "not a table (field larger than"),
    ],
)
def test_a_record_that_is_no_record(tmp_path: Path, record: str, fault: str) -> None:
    environment, base = workspace(tmp_path, RECORD)
    (base / TRAINED_ON).write_bytes(record.encode("latin-1"))
    pin("base", str(base), None).save(tmp_path / BASE)
    unread(asked(environment), fault)


def unread(found: Withdrawn, why: str) -> None:
    (version,) = found.versions
    assert found.unknown == ()
    assert found.exit_code == ExitCode.LINEAGE
    assert why in version.unread[0]
    assert not [sentence for sentence in version.unknown if sentence.startswith("base: ")]
