"""Clips by the names that people type, whatever their ids look like."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from erv.files import write_document
from erv.lineage import clips
from erv.manifest import ClipRow, write_manifest

ROW = ClipRow(
    clip_id="00019",
    dataset="mafw",
    fold=1,
    split="train",
    label="anger",
    raw_label="anger",
    caption="He frowns.",
    completion=None,
    media="video",
    uri="s3://raw/mafw/00019.mp4",
    bytes=1,
    sha256="0" * 64,
    label_from="train.txt:1",
    split_from="train.txt:1",
    caption_from="captions.txt:7",
)


DATASETS = ("mafw", "films")


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data/manifest"
    folder.mkdir(parents=True)
    write_manifest([ROW], folder / "mafw.parquet")
    write_manifest(
        [
            dataclasses.replace(ROW, clip_id=clip, dataset="films", caption=None, caption_from=None)
            for clip in ("mafw/3", "v/3")
        ],
        folder / "films.parquet",
    )
    absent = ["data/clips/00020.mp4", "data/clips/00120.mp4"]
    checks = tmp_path / "data/checks"
    checks.mkdir()
    (checks / "mafw.json").write_text(json.dumps({"absent": absent}))
    (checks / "films.json").write_text(json.dumps({"absent": ["v/4.mp4", "frames/00007"]}))


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("mafw/00019", [("mafw", "00019")]),
        ("00019", [("mafw", "00019")]),
        ("films/v/3", [("films", "v/3")]),
        ("v/3", [("films", "v/3")]),
        ("mafw/3", [("films", "mafw/3")]),
        ("films/00019", []),
        ("3", []),
        ("../mafw", []),
        ("*", []),
        ("mafw/", []),
    ],
)
def test_rows(target: str, found: list[tuple[str, str]]) -> None:
    rows = clips.manifest_rows(target, DATASETS)
    assert [(row["dataset"], row["clip_id"]) for row in rows] == found


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("mafw/00020", ["mafw"]),
        ("00020", ["mafw"]),
        ("0020", []),
        ("films/v/4", ["films"]),
        ("4", ["films"]),
        ("00007", ["films"]),
        ("mafw/00019", []),
        ("", []),
    ],
)
def test_clips_that_a_source_lacks(target: str, found: list[str]) -> None:
    assert clips.absent_from(target, DATASETS) == found


def test_where_each_value_came_from() -> None:
    facts = clips.facts(clips.manifest_rows("mafw/00019", DATASETS)[0], ())
    assert facts[1:] == [
        "label from train.txt:1",
        "split from train.txt:1",
        "caption from captions.txt:7",
    ]
    assert len(clips.facts(clips.manifest_rows("v/3", DATASETS)[0], ())) == 3


def test_data_sets_and_policies_that_are_not_asked_for_are_not_read() -> None:
    assert clips.manifest_rows("v/3", ["mafw"]) == []
    assert clips.absent_from("films/v/4", ["mafw"]) == []
    Path("data/quarantine").mkdir()
    Path("data/quarantine/films.parquet").write_bytes(b"left over, and no parquet")
    assert clips.excluded_rows("v/3", ["mafw"]) == []
    said = {"clip_id": ["00019"], "dataset": ["mafw"], "predicted": ["anger"], "judged": ["fear"]}
    for policy in ("erv", "old"):
        (Path("eval") / policy).mkdir(parents=True)
        pq.write_table(pa.table(said), f"eval/{policy}/predictions.parquet")
    row = clips.manifest_rows("mafw/00019", DATASETS)[0]
    assert clips.facts(row, ["erv", "sft"])[4:] == ["erv answered anger, judged fear"]


def test_a_clip_that_training_leaves_out_says_so() -> None:
    because = "same content as films/v/3 (test, s3://raw/v/3.mp4)"
    twin = {"twin": "films/v/3", "twin_use": "test", "twin_uri": "s3://raw/v/3.mp4", "alike": "same content"}
    record = {"action": "exclude", "found": [{"clip": "mafw/00019", **twin}]}
    write_document(record, Path("data/leakage.json"))
    row = clips.manifest_rows("mafw/00019", DATASETS)[0]
    assert clips.facts(row, ())[4:] == [f"left out of training and tuning: {because}"]
    write_document({**record, "action": "warn"}, Path("data/leakage.json"))
    assert clips.facts(row, ())[4:] == []
    write_document(record, Path("data/leakage.json"))
    assert len(clips.facts(clips.manifest_rows("v/3", DATASETS)[0], ())) == 3
