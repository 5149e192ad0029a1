"""What the outputs of the pipeline say about one clip: manifests, quarantine, predictions."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from erv.files import read_document, read_parquet


def manifest_rows(target: str) -> list[dict[str, Any]]:
    """The manifest rows of a clip: `mafw/00019`, or `00019` in any data set that has it."""
    return _found(Path("data/manifest"), target)


def excluded_rows(target: str) -> list[dict[str, Any]]:
    """The quarantine rows of a listed clip that ingest left out."""
    return [row for row in _found(Path("data/quarantine"), target) if row["stage"] == "ingest"]


def absent_from(target: str) -> list[str]:
    """The data sets that list a clip but lack it in their source."""
    names = []
    for path in sorted(Path("data/checks").glob("*.json")):
        dataset = path.stem
        endings = tuple(f"/{clip}" for clip in (target, target.removeprefix(f"{dataset}/")))
        absent = read_document(path, "ingest")["absent"]
        if any(f"/{PurePosixPath(name).with_suffix('')}".endswith(endings) for name in absent):
            names.append(dataset)
    return names


def facts(row: dict[str, Any]) -> list[str]:
    """Where a manifest row comes from, whether its clip is in quarantine, what the policies said about it."""
    dataset, clip_id = row["dataset"], row["clip_id"]
    found = [
        f"{row['uri']}  sha256 {row['sha256']}",
        f"label from {row['label_from']}",
        f"split from {row['split_from']}",
        *([f"caption from {row['caption_from']}"] if row["caption_from"] else []),
    ]
    for path in sorted(Path("data/quarantine").glob(f"{dataset}.parquet")):
        found += [f"in quarantine: {bad['reason']}" for bad in _rows(path, clip_id)]
    for path in sorted(Path("eval").glob("*/predictions.parquet")):
        found += [
            f"{path.parent.name} answered {said['predicted']}, judged {said['judged']}"
            for said in _rows(path, clip_id)
            if said["dataset"] == dataset
        ]
    return found


def _found(folder: Path, target: str) -> list[dict[str, Any]]:
    """Rows of a clip in the files of a folder: in the data set before the first slash, otherwise in any.

    Clip ids may contain slashes themselves, for instance those of tables.
    """
    dataset, _, clip_id = target.partition("/")
    files = {path.stem: path for path in sorted(folder.glob("*.parquet"))}
    if dataset in files and clip_id and (rows := _rows(files[dataset], clip_id)):
        return rows
    return [row for path in files.values() for row in _rows(path, target)]


def _rows(path: Path, clip_id: str) -> list[dict[str, Any]]:
    stage = {"manifest": "ingest", "quarantine": "extract"}.get(path.parent.name, "evaluate")
    return list(read_parquet(path, stage, filters=[("clip_id", "=", clip_id)]).to_pylist())
