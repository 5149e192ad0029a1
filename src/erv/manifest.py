"""The manifest: one row per clip, the contract between ingestion and everything after it.

Columns and types are `SCHEMA`; rows are sorted by clip id, so that equal content gives equal bytes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from erv.errors import DataError
from erv.files import whole_file

SPLITS = ("train", "validation", "test")

SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("fold", pa.int32(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("raw_label", pa.string(), nullable=False),
        pa.field("caption", pa.string()),
        pa.field("completion", pa.string()),
        pa.field("media", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("label_from", pa.string(), nullable=False),
        pa.field("split_from", pa.string(), nullable=False),
        pa.field("caption_from", pa.string()),
    ]
)
# What is said in a clip; a column only of data sets that say it of a clip.
SUBTITLE = pa.field("subtitle", pa.string())


@dataclass(frozen=True)
class ClipRow:
    """One clip.

    Attributes:
        clip_id: unique within its data set, e.g. `00019`, `1`, `sample_00000001`.
        dataset: the data set's name in params.yaml, which is also the name of its label space.
        fold: the official fold (1..5); 0 if the data set has none.
        split: train, validation or test.
        label: canonical name in the data set's label space.
        raw_label: what the data set's own file says.
        caption: a human description of the clip, if the data set has one.
        completion: target completion of a reasoning clip, `<think>..</think>` and `<answer>..</answer>`.
        media: video, or frames for a folder of images, which has no sound.
        uri: where the clip is; its content is fixed by `sha256`. `archive.zip!/name` is a member of an
            archive, a trailing slash marks a frame folder.
        bytes: size in bytes.
        sha256: hex digest of the clip's file, or over names and digests of a folder's frames.
        label_from: the line that gave the label, e.g. `Labels/single-set.xlsx#row2`.
        split_from: the line that gave the split, and whether validation was cut from it.
        caption_from: the line that gave the caption, if there is one.
        subtitle: what is said in the clip, if the data set's files have it.
    """

    clip_id: str
    dataset: str
    fold: int
    split: str
    label: str
    raw_label: str
    caption: str | None
    completion: str | None
    media: str
    uri: str
    bytes: int
    sha256: str
    label_from: str
    split_from: str
    caption_from: str | None
    subtitle: str | None = None


def write_manifest(rows: Iterable[ClipRow], path: Path) -> None:
    """Writes rows sorted by clip id.

    Raises:
        DataError: there are no rows, a clip id occurs twice, or a split is unknown.
    """
    ordered = sorted(rows, key=lambda row: row.clip_id)
    if not ordered:
        raise DataError(f"{path}: no clip to write; the source's split files list none that exists")
    for before, after in itertools.pairwise(ordered):
        if before.clip_id == after.clip_id:
            raise DataError(f"{path}: clip {after.clip_id!r} is listed twice; a clip belongs to one split")
    for row in ordered:
        if row.split not in SPLITS:
            raise DataError(
                f"{path}: clip {row.clip_id!r} has split {row.split!r}, expected {', '.join(SPLITS)}"
            )
    schema = SCHEMA.append(SUBTITLE) if any(row.subtitle is not None for row in ordered) else SCHEMA
    write_table(pa.Table.from_pylist([asdict(row) for row in ordered], schema=schema), path)


def read_table(path: Path) -> pa.Table:
    """The manifest as an Arrow table with `SCHEMA`, and `SUBTITLE` if it has that column.

    Raises:
        DataError: the file is missing or has other columns.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise DataError(f"{path}: manifest not found; run `dvc repro ingest` first") from None
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: not a readable parquet file ({error}); delete it and run `dvc repro ingest` again"
        ) from error
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if missing:
        raise DataError(f"{path}: lacks the columns {', '.join(missing)}; it was not written by ingest")
    more = [SUBTITLE.name] if SUBTITLE.name in table.column_names else []
    return table.select([*SCHEMA.names, *more])


def read_manifest(path: Path) -> list[ClipRow]:
    """The manifest as rows, in the order of the file (by clip id); raises as `read_table`."""
    names = [item.name for item in fields(ClipRow)]
    return [ClipRow(**{name: row.get(name) for name in names}) for row in read_table(path).to_pylist()]


def read_manifests(
    folder: Path, names: Sequence[str], *, fold: int | None = None
) -> dict[str, list[ClipRow]]:
    """The manifests of these data sets, and of no other that the folder may hold, by name.

    Args:
        folder: with `NAME.parquet` for each.
        names: names of data sets.
        fold: the fold that they must be of, unless they have none; None if any will do, as long as all are of
            the same.

    Raises:
        DataError: as `read_table`; or a manifest is of another data set or fold, or two are of different
            folds.
    """
    found: dict[str, list[ClipRow]] = {}
    folds: dict[int, str] = {}
    for name in names:
        path = folder / f"{name}.parquet"
        rows = read_manifest(path)
        others = sorted({row.dataset for row in rows} - {name})
        if others:
            raise DataError(
                f"{path}: has clips of {others[0]}, expected {name}; run `dvc repro ingest@{name}` again"
            )
        for number in sorted({row.fold for row in rows} - {0}):
            if fold is not None and number != fold:
                raise DataError(
                    f"{path}: is of fold {number}, but ingest.fold is {fold}; run `dvc repro ingest@{name}`"
                    " again"
                )
            folds.setdefault(number, name)
        found[name] = rows
    if len(folds) > 1:
        mixed = ", ".join(f"{name} of fold {number}" for number, name in sorted(folds.items()))
        raise DataError(f"{folder}: holds {mixed}; one run uses one fold: run `dvc repro ingest` again")
    return found


def write_table(table: pa.Table, path: Path) -> None:
    """Writes a small parquet file under a temporary name, then renames it."""
    with whole_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
