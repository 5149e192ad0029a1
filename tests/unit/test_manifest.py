"""Manifests of a run: those that are asked for, all of one fold, and no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from erv.errors import DataError
from erv.manifest import SCHEMA, ClipRow, read_manifest, read_manifests, read_table, write_manifest


def write(folder: Path, name: str, fold: int, dataset: str = "") -> ClipRow:
    row = ClipRow(
        "1", dataset or name, fold, "train", "anger", "anger", None, None, "video", "1.mp4", 1, "0" * 64,
        "labels", "splits", None,
    )  # fmt: skip
    write_manifest([row], folder / f"{name}.parquet")
    return row


def test_what_is_not_asked_for_is_not_read(tmp_path: Path) -> None:
    rows = {name: [write(tmp_path, name, fold)] for name, fold in (("mafw", 2), ("reasoning", 0))}
    write(tmp_path, "dfew", 1)  # left over from a run on fold 1
    (tmp_path / "old.parquet").write_bytes(b"no parquet")
    for fold in (None, 2):
        found = read_manifests(tmp_path, ["mafw", "reasoning"], fold=fold)
        assert found == rows
        assert list(found) == ["mafw", "reasoning"]


def test_manifests_of_different_folds_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "mafw", 2)
    write(tmp_path, "dfew", 1)
    write(tmp_path, "reasoning", 0)
    with pytest.raises(DataError) as caught:
        read_manifests(tmp_path, ["mafw", "dfew", "reasoning"])
    assert str(caught.value) == (
        f"{tmp_path}: holds dfew of fold 1, mafw of fold 2; one run uses one fold: run `dvc repro ingest`"
        " again"
    )
    with pytest.raises(DataError, match=r"dfew.parquet: is of fold 1, but ingest.fold is 2; run `dvc repro"):
        read_manifests(tmp_path, ["mafw", "dfew"], fold=2)


def test_a_manifest_under_another_name_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "mafw", 1, dataset="dfew")
    with pytest.raises(DataError, match=r"mafw.parquet: has clips of dfew, expected mafw"):
        read_manifests(tmp_path, ["mafw"])
    with pytest.raises(DataError, match=r"dfew.parquet: manifest not found"):
        read_manifests(tmp_path, ["dfew"])


def test_subtitles_are_a_column_only_where_there_are_some(tmp_path: Path) -> None:
    row = write(tmp_path, "mafw", 1)
    assert read_table(tmp_path / "mafw.parquet").schema.names == SCHEMA.names
    said = [replace(row, subtitle="Oh no!"), replace(row, clip_id="2")]
    write_manifest(said, tmp_path / "said.parquet")
    assert read_table(tmp_path / "said.parquet").schema.names == [*SCHEMA.names, "subtitle"]
    assert read_manifest(tmp_path / "said.parquet") == said
