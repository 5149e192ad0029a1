"""What the outputs of the pipeline say about one clip: manifests, quarantine, predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from erv.files import read_document, read_parquet
from erv.lineage.excluded import left_out

LEAKAGE = Path("data/leakage.json")


def manifest_rows(target: str, datasets: Sequence[str]) -> list[dict[str, Any]]:
    """The manifest rows of a clip: `mafw/00019`, or `00019` in any of these data sets that has it."""
    return _found(Path("data/manifest"), target, datasets)


def excluded_rows(target: str, datasets: Sequence[str]) -> list[dict[str, Any]]:
    """The quarantine rows of a listed clip that ingest left out."""
    return [row for row in _found(Path("data/quarantine"), target, datasets) if row["stage"] == "ingest"]


def absent_from(target: str, datasets: Sequence[str]) -> list[str]:
    """Those of these data sets that list a clip but lack it in their source."""
    names = []
    for dataset in sorted(datasets):
        path = Path("data/checks") / f"{dataset}.json"
        if not path.is_file():
            continue
        endings = tuple(f"/{clip}" for clip in (target, target.removeprefix(f"{dataset}/")))
        absent = read_document(path, "ingest")["absent"]
        if any(f"/{PurePosixPath(name).with_suffix('')}".endswith(endings) for name in absent):
            names.append(dataset)
    return names


def facts(row: dict[str, Any], policies: Sequence[str]) -> list[str]:
    """Where a manifest row comes from, whether its clip was left out, what these policies said about it."""
    dataset, clip_id = row["dataset"], row["clip_id"]
    found = [
        f"{row['uri']}  sha256 {row['sha256']}",
        f"label from {row['label_from']}",
        f"split from {row['split_from']}",
        *([f"caption from {row['caption_from']}"] if row["caption_from"] else []),
    ]
    for path in sorted(Path("data/quarantine").glob(f"{dataset}.parquet")):
        found += [f"in quarantine: {bad['reason']}" for bad in _rows(path, clip_id)]
    if LEAKAGE.is_file() and (because := left_out(read_document(LEAKAGE, "leakage")).get((dataset, clip_id))):
        found.append(f"left out of training and tuning: {because}")
    for path in (Path("eval") / policy / "predictions.parquet" for policy in sorted(policies)):
        if not path.is_file():
            continue
        found += [
            f"{path.parent.name} answered {said['predicted']}, judged {said['judged']}"
            for said in _rows(path, clip_id)
            if said["dataset"] == dataset
        ]
    return found


def _found(folder: Path, target: str, datasets: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of a clip in the files of a folder: in the data set before the first slash, otherwise in any.

    Clip ids may contain slashes themselves, for instance those of tables.
    """
    dataset, _, clip_id = target.partition("/")
    paths = (folder / f"{name}.parquet" for name in sorted(datasets))
    files = {path.stem: path for path in paths if path.is_file()}
    if dataset in files and clip_id and (rows := _rows(files[dataset], clip_id)):
        return rows
    return [row for path in files.values() for row in _rows(path, target)]


def _rows(path: Path, clip_id: str) -> list[dict[str, Any]]:
    stage = {"manifest": "ingest", "quarantine": "extract"}.get(path.parent.name, "evaluate")
    return list(read_parquet(path, stage, filters=[("clip_id", "=", clip_id)]).to_pylist())
