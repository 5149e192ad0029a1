"""Clips of a manifest: what is wrong with one costs its row, what is wrong with the manifest ends at once."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from erv.errors import DataError
from erv.manifest import SCHEMA, ClipRow, read_manifest, write_manifest
from erv.predict.listing import Unread, list_clips
from erv.sources import LOCKS, Lock, SourceFile

NAMES = ("a b.mp4", "c#1%20+ü.mp4", "d.mp4")


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three clips in a local source."""
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "source"
    source.mkdir()
    for name in NAMES:
        (source / name).write_bytes(name.encode())
    files = tuple(SourceFile(name, 1, hashlib.sha256(name.encode()).hexdigest()) for name in NAMES)
    Lock("mafw", str(source), files).save(LOCKS / "mafw.lock.json")
    return write([row(f"{source}/{name}", name) for name in NAMES])


def row(uri: str, name: str, dataset: str = "mafw") -> ClipRow:
    return ClipRow(
        clip_id=name, dataset=dataset, fold=0, split="test", label="happiness", raw_label="happy",
        caption=None, completion=None, media="video", uri=uri, bytes=1,
        sha256=hashlib.sha256(name.encode()).hexdigest(), label_from="", split_from="", caption_from=None,
    )  # fmt: skip


def write(rows: list[ClipRow]) -> Path:
    """As ingest writes it, but for its checks."""
    path = Path("mafw.parquet")
    pq.write_table(pa.Table.from_pylist([asdict(item) for item in rows], schema=SCHEMA), path)
    return path


def test_a_clip_that_is_gone_or_changed_costs_its_row_only(manifest: Path) -> None:
    """The first one ended the whole command."""
    Path("source", NAMES[0]).unlink()
    Path("source", NAMES[2]).write_bytes(b"other")
    listing = list_clips(manifest)
    assert [clip.name for clip in listing.clips] == list(NAMES)
    gone, good, changed = listing.files([0, 1, 2])
    assert isinstance(gone, Unread)
    assert "file not found; restore it or pin again" in gone.reason
    assert good == Path("source", NAMES[1]).resolve()
    assert isinstance(changed, Unread)
    assert "content has changed since it was pinned" in changed.reason


def test_data_set_and_subtitle_are_listed_with_each_clip(manifest: Path) -> None:
    """They were dropped, so that a version was asked another question than when it was evaluated."""
    rows = [
        replace(item, subtitle="You came!") if item.clip_id == NAMES[0] else item
        for item in read_manifest(manifest)
    ]
    write_manifest(rows, manifest)
    assert [(clip.dataset, clip.subtitle) for clip in list_clips(manifest).clips] == [
        ("mafw", "You came!"),
        ("mafw", None),
        ("mafw", None),
    ]


def test_a_source_that_is_gone_ends_at_once(manifest: Path) -> None:
    Path("source").rename("elsewhere")
    with pytest.raises(DataError, match=r"its clips are in .*/source, which is no folder; mount or restore"):
        list_clips(manifest)


def test_a_manifest_that_can_not_be_asked_about(manifest: Path) -> None:
    uri = str(Path("source", NAMES[0]).resolve())
    for rows, said in (
        ([row(uri, NAMES[0])] * 2, "lists clip 'a b.mp4' twice, so a row could not be told from the other"),
        ([row(uri, NAMES[0]), row(uri, "x", "dfew")], "has clips of dfew and mafw; ask about one data set"),
        ([row(uri, NAMES[1])], "is not as in the lock of mafw; run `dvc repro ingest@mafw` again"),
        ([row(f"{uri}x", NAMES[0])], "is not as in the lock of mafw; run `dvc repro ingest@mafw` again"),
        ([], "lists no clips"),
    ):
        with pytest.raises(DataError) as refused:
            list_clips(write(rows))
        assert said in str(refused.value)
    table = pa.table({name: pa.nulls(1) for name in SCHEMA.names})
    pq.write_table(table, manifest)
    with pytest.raises(DataError, match="has rows without the id, data set, uri or sha256 of a clip"):
        list_clips(manifest)
