"""`data/sentences.parquet`: the labelled sentences as a table."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from erv.errors import DataError
from erv.manifest import SPLITS, write_table

SCHEMA = pa.schema(
    [
        pa.field("sentence", pa.string(), nullable=False),
        pa.field("labels", pa.list_(pa.string()), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("teacher", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("clip_id", pa.string(), nullable=False),
    ]
)
QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field(name, pa.string(), nullable=False)
        for name in ("sentence", "source", "clip_id", "teacher", "reason", "detail")
    ]
)


def write_sentences(table: pa.Table, path: Path) -> None:
    """Writes the sentences; raises DataError if a split is empty, because the verifier needs all three."""
    for split in SPLITS:
        if split not in table.column("split").to_pylist():
            raise DataError(
                f"{path}: no sentence fell into the {split} split; give more different sentences, or"
                " raise distill.validation_share and distill.test_share"
            )
    write_table(table, path)
