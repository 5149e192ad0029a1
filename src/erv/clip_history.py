"""What the outputs of the pipeline say of one clip: manifests, quarantine, predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def manifest_rows(target: str) -> list[dict[str, Any]]:
    """The manifest rows of a clip, `mafw/00019` or `00019` in whatever data set has one."""
    dataset, _, clip_id = target.rpartition("/")
    paths = sorted(Path("data/manifest").glob(f"{dataset or '*'}.parquet"))
    return [row for path in paths for row in _rows(path, clip_id)]


def excluded_rows(target: str) -> list[dict[str, Any]]:
    """The quarantine rows of a clip that ingest listed and left out."""
    dataset, _, clip_id = target.rpartition("/")
    paths = sorted(Path("data/quarantine").glob(f"{dataset or '*'}.parquet"))
    return [row for path in paths for row in _rows(path, clip_id) if row["stage"] == "ingest"]


def facts(row: dict[str, Any]) -> list[str]:
    """Where a manifest row comes from, whether its clip is in quarantine, what the policies said of it."""
    dataset, clip_id = row["dataset"], row["clip_id"]
    found = [
        f"{row['uri']}  sha256 {row['sha256']}",
        f"label from {row['label_from']}",
        f"split from {row['split_from']}",
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


def _rows(path: Path, clip_id: str) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return list(pq.read_table(path, filters=[("clip_id", "=", clip_id)]).to_pylist())
