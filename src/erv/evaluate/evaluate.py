"""Evaluates one policy: reads its completions, has them judged, measures, and writes the predictions.

The table of predictions has one row per test clip, sorted by data set and clip, so that policies can be
compared on the same clips.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from erv.errors import EvaluationError
from erv.evaluate.judges import Judge
from erv.evaluate.metrics import all_metrics, read_completion
from erv.files import write_text
from erv.labels import LabelSpace
from erv.manifest import ClipRow, write_table
from erv.prompts import parse_completion

OVERALL = "overall"

SCHEMA = pa.schema(
    [
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("completion", pa.string(), nullable=False),
        pa.field("predicted", pa.string()),
        pa.field("judged", pa.string()),
        pa.field("sentences", pa.int32(), nullable=False),
    ]
)
# Only under `evaluate.samples`; one row per clip either way.
SAMPLES = pa.field(
    "samples", pa.list_(pa.struct([pa.field("completion", pa.string()), pa.field("predicted", pa.string())]))
)


def judge_completions(
    rows: Sequence[ClipRow], completions: Mapping[str, str], judge: Judge
) -> list[dict[str, Any]]:
    """Reads and judges the completions of one data set.

    Args:
        rows: the clips of one data set that were shown to the policy.
        completions: completion by clip id.
        judge: names the emotion of an explanation in the data set's own space.

    Returns:
        Rows of the predictions table, by clip id.

    Raises:
        EvaluationError: a clip has no completion.
    """
    ordered = sorted(rows, key=lambda row: row.clip_id)
    if not ordered:
        return []
    space = LabelSpace.load(ordered[0].dataset)
    for row in ordered:
        if row.clip_id not in completions:
            raise EvaluationError(
                f"clip {row.clip_id!r} of {row.dataset} has no completion; run evaluate again"
            )
    readings = [read_completion(completions[row.clip_id], space) for row in ordered]
    judged = judge.judge([reading.explanation for reading in readings], space)
    return [
        {
            "dataset": row.dataset,
            "clip_id": row.clip_id,
            "split": row.split,
            "label": row.label,
            "completion": completions[row.clip_id],
            "predicted": reading.predicted,
            "judged": heard,
            "sentences": reading.sentences,
        }
        for row, reading, heard in zip(ordered, readings, judged, strict=True)
    ]


def scope_rows(predictions: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The predictions by scope: `overall`, then each data set.

    `overall` pools the clips with label, predicted and judged in the MAFW space, which the others map into. A
    clip whose label has no name there counts for its data set alone.

    Raises:
        DataError: a data set's label space has no map to MAFW.
    """
    mafw = LabelSpace.load("mafw")
    scopes: dict[str, list[dict[str, Any]]] = {OVERALL: []}
    maps: dict[str, Callable[[str | None], str | None]] = {}  # looked up once: loading a space asks the disk
    for row in predictions:
        dataset = row["dataset"]
        if dataset not in maps:
            maps[dataset] = LabelSpace.load(dataset).to(mafw)
        to_mafw = maps[dataset]
        scopes.setdefault(dataset, []).append(dict(row))
        pooled = {**row, **{name: to_mafw(row[name]) for name in ("label", "predicted", "judged")}}
        if pooled["label"] is not None:
            scopes[OVERALL].append(pooled)
    return scopes


def scope_space(scope: str) -> LabelSpace:
    """The label space of a scope's rows."""
    return LabelSpace.load("mafw" if scope == OVERALL else scope)


def measure(predictions: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | int]]:
    """The five metrics, numbers of clips and of unreadable answers, and the released values, per scope."""
    result = {}
    for scope, rows in scope_rows(predictions).items():
        columns = {name: [row[name] for row in rows] for name in ("label", "predicted", "judged")}
        values = all_metrics(columns["label"], columns["predicted"], columns["judged"], scope_space(scope))
        sentences = sum(row["sentences"] for row in rows)
        # Explanations that shrink are the first sign of a reward being gamed.
        shape = {"sentences": round(sentences / len(rows), 6) if rows else 0.0}
        result[scope] = {**values, **unread_answers(rows), **shape}
    return result


def unread_answers(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many completions have no answer to count, by kind.

    Args:
        rows: rows of the predictions table, in one scope.

    Returns:
        `malformed`: without a closed and filled answer block. `outside`: with an answer that is not a label
        of the space.
    """
    kinds = [unread_kind(row) for row in rows]
    return {kind: kinds.count(kind) for kind in ("malformed", "outside")}


def unread_kind(row: Mapping[str, Any]) -> str | None:
    """`malformed` or `outside`, see `unread_answers`; None if the row has an answer that counts."""
    if row["predicted"] is not None:
        return None
    return "outside" if parse_completion(row["completion"]).answer else "malformed"


def count_unreadable(predictions: Sequence[Mapping[str, Any]], judge: Judge) -> dict[str, int]:
    """The number of explanations outside what the judge can read, by scope; see `Judge.unreadable`."""
    texts = [parse_completion(row["completion"]).explanation for row in predictions]
    counts = {OVERALL: 0} | dict.fromkeys((row["dataset"] for row in predictions), 0)
    for row, unread in zip(predictions, judge.unreadable(texts), strict=True):
        counts[row["dataset"]] += unread
        counts[OVERALL] += unread
    return counts


def write_predictions(predictions: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes the predictions, sorted by data set and clip."""
    ordered = sorted(predictions, key=lambda row: (row["dataset"], row["clip_id"]))
    sampled = any("samples" in row for row in ordered)
    schema = SCHEMA.append(SAMPLES) if sampled else SCHEMA
    write_table(pa.Table.from_pylist([dict(row) for row in ordered], schema=schema), path)


def read_predictions(path: Path) -> list[dict[str, Any]]:
    """Reads predictions.

    Raises:
        EvaluationError: the file is missing, damaged, or lacks a column.
    """
    if not path.is_file():
        raise EvaluationError(f"{path}: predictions not found; run `dvc repro evaluate` first")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise EvaluationError(
            f"{path}: not a readable parquet file ({error}); delete it and run `dvc repro evaluate` again"
        ) from None
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if missing:
        raise EvaluationError(
            f"{path}: lacks the columns {', '.join(missing)}; it was not written by evaluate"
        )
    return list(table.select(SCHEMA.names).to_pylist())


def write_json(value: Any, path: Path) -> None:
    """Writes indented JSON, its keys sorted."""
    write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", path)
