"""What training reads of the training sets, as one small file of hashes through which `grpo` depends on them.

DVC can't expand a list of data sets into dependencies of a stage, the folders that hold the manifests and
shards of all data sets change with every new test set, and a manifest with every test clip. So the stage
`leakage`, which reads them all anyway, writes the hashes of what training reads of those in `roles.train`: of
their training clips alone. `grpo` depends on that file: other test clips leave it as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from erv.errors import DataError
from erv.files import read_document, read_parquet, sha256_of, write_document
from erv.labels.label_space import own_file
from erv.manifest import read_table
from erv.shards import ShardReader

Hashes = dict[str, dict[str, str | None]]

SPLIT = "train"
# What training reads of a clip's row. Where its label comes from is left out, say: a line of a list, whose
# number changes with the test clips above it.
COLUMNS = ("clip_id", "dataset", "label", "subtitle")


def hash_training_sets(manifests: Path, shards: Path, cues: Path, names: Sequence[str]) -> Hashes:
    """Hex sha256 of what training on data sets reads, by data set in the given order.

    Args:
        manifests: folder with `NAME.parquet` for each.
        shards: folder with a folder NAME for each.
        cues: folder with `NAME.parquet` for each.
        names: names of data sets.

    Returns:
        `rows`, `shards` and `cues` of the clips in the split `train`, and `label_space`: the data set's file
        in `data/label_spaces`, or None if it needs none because its space comes with the package.

    Raises:
        DataError: a manifest, its shards or its cues are missing or damaged.
    """
    found: Hashes = {}
    for name in names:
        rows = training_rows(read_table(manifests / f"{name}.parquet"))
        clips = [row["clip_id"] for row in rows]
        space = own_file(name)
        found[name] = {
            "rows": hash_of_rows(rows),
            "shards": _hash_of_shards(shards / name, clips),
            "cues": _hash_of_cues(cues / f"{name}.parquet", name, clips),
            "label_space": None if space is None else sha256_of(space),
        }
    return found


def training_rows(manifest: pa.Table) -> list[dict[str, Any]]:
    """What training reads of a manifest: `COLUMNS` of the clips in the split `train`, sorted by clip id.

    Args:
        manifest: with those columns and `split`; without `subtitle`, nothing is said in any clip.
    """
    columns = [name for name in ("split", *COLUMNS) if name in manifest.column_names]
    rows = [row for row in manifest.select(columns).to_pylist() if row["split"] == SPLIT]
    return sorted(({name: row.get(name) for name in COLUMNS} for row in rows), key=lambda row: row["clip_id"])


def hash_of_rows(rows: Iterable[Mapping[str, Any]]) -> str:
    """Hex sha256 of rows of a table: equal for equal values, however the file was written."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _hash_of_shards(folder: Path, clips: Iterable[str]) -> str:
    """Of frames and sound of these clips; those that are in quarantine are in no shard."""
    reader, digest = ShardReader(folder), hashlib.sha256()
    for clip_id in clips:
        if clip_id in reader:
            clip = reader.get(clip_id)
            form = [clip_id, clip.frames.shape, clip.audio.shape, clip.sample_rate, clip.has_audio]
            digest.update(json.dumps(form).encode() + b"\n")
            digest.update(clip.frames.data)
            digest.update(clip.audio.data)
    return digest.hexdigest()


def _hash_of_cues(path: Path, name: str, clips: Iterable[str]) -> str:
    trained = set(clips)
    rows = [row for row in read_parquet(path, f"ingest@{name}").to_pylist() if row["clip_id"] in trained]
    return hash_of_rows(sorted(rows, key=lambda row: str(row["clip_id"])))


def write_training_sets(hashes: Hashes, path: Path) -> None:
    """Writes what `hash_training_sets` returned."""
    write_document({"training_sets": hashes}, path)


def check_training_sets(
    path: Path, manifests: Path, shards: Path, cues: Path, names: Sequence[str]
) -> Hashes:
    """The hashes of what training reads, which must be those in the file.

    Args:
        path: written by `write_training_sets`.
        manifests: as for `hash_training_sets`.
        shards: as for `hash_training_sets`.
        cues: as for `hash_training_sets`.
        names: `roles.train`.

    Raises:
        DataError: the file is missing or damaged, or a data set is not as it was when the file was written.
    """
    written = read_document(path, "leakage").get("training_sets")
    found = hash_training_sets(manifests, shards, cues, names)
    for name, hashes in found.items():
        recorded = written.get(name) if isinstance(written, dict) else None
        recorded = recorded if isinstance(recorded, dict) else {}
        changed = [what for what, value in hashes.items() if recorded.get(what, "") != value]
        if changed:
            what = changed[0].replace("_", " ")
            raise DataError(
                f"{name}: {what} of its training clips changed since {path} was written;"
                " run `dvc repro leakage` again"
            )
    return found
