"""The table of answers, `studies/NAME/answers.parquet`: the database's log in a file that DVC tracks.

A row per answer and per undo, by number. Rows are only added, so a later table begins with an earlier one,
and equal logs give equal bytes. It has pseudonyms and codes: no policy, no token, and nobody's id at a panel.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from erv.errors import DataError
from erv.files import write_text
from erv.study.answers.tables import UNDO
from erv.study.plan import Study

FILE, SHEET = "answers.parquet", "answers.csv"

SCHEMA = pa.schema(
    [
        pa.field("number", pa.int64(), nullable=False),
        pa.field("study", pa.string(), nullable=False),  # SHA-256 of the plan
        pa.field("rater", pa.string(), nullable=False),
        pa.field("slot", pa.string()),  # null if the answer was given in another program
        pa.field("item", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # pair, rating or undo
        pa.field("value", pa.string()),  # JSON, see `Study.check`; null of an undo
        pa.field("undoes", pa.int64()),
        pa.field("shown_seconds", pa.float64(), nullable=False),
        pa.field("at_ms", pa.int64(), nullable=False),  # milliseconds since 1970, UTC
        pa.field("key", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Answer:
    """An answer that counts, as none of its rater took it back.

    Attributes:
        number: its place in the log.
        rater: a pseudonym.
        item: id of the item.
        value: as in `Study.check`.
        shown_seconds: how long the item was shown.
        at_ms: when, milliseconds since 1970.
    """

    number: int
    rater: str
    item: str
    value: Mapping[str, Any]
    shown_seconds: float
    at_ms: int


def rows_of(log: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the table.

    Args:
        log: from `Database.log`.
    """
    return [
        {
            **{name: row[name] for name in SCHEMA.names if name != "shown_seconds"},
            "shown_seconds": row["shown_ms"] / 1000,
        }
        for row in log
    ]


def write_answers(log: Sequence[Mapping[str, Any]], study: Study) -> tuple[Path, int, int]:
    """Writes the table beside the plan, and the same as CSV.

    Returns:
        The path, the number of rows, and how many of them are new.

    Raises:
        DataError: the table that is there is damaged, or has rows that the log lacks: it came from another
            database, or the database was put back to an earlier state.
    """
    from erv.manifest import write_table

    path, rows = study.folder / FILE, rows_of(log)
    before = _read(path) if path.exists() else []
    if before != rows[: len(before)]:
        odd = next(
            (row for row, now in zip(before, rows, strict=False) if row != now),
            before[min(len(rows), len(before) - 1)],
        )
        raise DataError(
            f"{path}: has answer {odd['number']}, which the database doesn't have as it is there. A table"
            " only grows: name the database that it came from (ERV_STUDY_DATABASE), or restore that one"
        )
    write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)
    write_text(_sheet(rows), study.folder / SHEET)
    return path, len(rows), len(rows) - len(before)


def read_answers(study: Study) -> list[Answer]:
    """The answers of a study that count, by number.

    Raises:
        DataError: the table is missing or damaged, or an answer is not one to this plan.
    """
    path = study.folder / FILE
    if not path.exists():
        raise DataError(
            f"{path}: not found; `erv study export {study.name}` writes it, or `dvc pull` fetches it"
        )
    rows = _read(path)
    undone = {row["undoes"] for row in rows if row["kind"] == UNDO}
    found = []
    for row in rows:
        if row["study"] != study.sha256:
            raise DataError(
                f"{path}: answer {row['number']} was given to another plan than"
                f" {study.folder / 'study.json'}; restore both together"
            )
        if row["kind"] == UNDO or row["number"] in undone:
            continue
        try:
            value = study.check(row["item"], json.loads(row["value"]))
        except (ValueError, DataError) as error:
            raise DataError(f"{path}: answer {row['number']}: {error}; restore the table") from None
        found.append(
            Answer(row["number"], row["rater"], row["item"], value, row["shown_seconds"], row["at_ms"])
        )
    seen: set[tuple[str, str]] = set()
    for answer in found:
        if (answer.rater, answer.item) in seen:
            raise DataError(
                f"{path}: rater {answer.rater} answered item {answer.item} twice; restore the table"
            )
        seen.add((answer.rater, answer.item))
    return found


def read_slots(study: Study) -> dict[str, str | None]:
    """The slot of each rater in the table; None of those who answered in another program."""
    return {row["rater"]: row["slot"] for row in _read(study.folder / FILE)}


def _read(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable parquet file ({error}); restore it with DVC") from None
    if table.schema.names != SCHEMA.names:
        raise DataError(f"{path}: not a table of answers; expected the columns {', '.join(SCHEMA.names)}")
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _sheet(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, SCHEMA.names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
