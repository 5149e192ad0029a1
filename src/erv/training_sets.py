"""What the training sets hold, as one small file of hashes through which `grpo` depends on them.

DVC can't expand a list of data sets into dependencies of a stage, and the folders that hold the manifests and
shards of all data sets change with every new test set. So the stage `leakage`, which reads them all anyway,
writes the hashes of those in `roles.train` alone, and `grpo` depends on that file: a new test set leaves it
as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from erv.errors import DataError
from erv.files import read_document, sha256_of, write_document
from erv.labels.label_space import own_file

Hashes = dict[str, dict[str, str | None]]


def hash_training_sets(manifests: Path, shards: Path, cues: Path, names: Sequence[str]) -> Hashes:
    """Hex sha256 of what training on data sets reads, by data set in the given order.

    Args:
        manifests: folder with `NAME.parquet` for each.
        shards: folder with a folder NAME for each.
        cues: folder with `NAME.parquet` for each.
        names: names of data sets.

    Returns:
        `manifest`, `shards`, `cues`, and `label_space`: the data set's file in `data/label_spaces`, or None
        if it needs none because its space comes with the package.

    Raises:
        DataError: a manifest, its shards or its cues are missing.
    """
    found: Hashes = {}
    for name in names:
        space = own_file(name)
        found[name] = {
            "manifest": sha256_of(manifests / f"{name}.parquet"),
            "shards": sha256_of(shards / name),
            "cues": sha256_of(cues / f"{name}.parquet"),
            "label_space": None if space is None else sha256_of(space),
        }
    return found


def write_training_sets(hashes: Hashes, path: Path) -> None:
    """Writes what `hash_training_sets` returned."""
    write_document({"training_sets": hashes}, path)


def check_training_sets(
    path: Path, manifests: Path, shards: Path, cues: Path, names: Sequence[str]
) -> Hashes:
    """The hashes of the training sets, which must be those in the file.

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
            raise DataError(f"{name}: its {what} is not what {path} names; run `dvc repro leakage` again")
    return found
