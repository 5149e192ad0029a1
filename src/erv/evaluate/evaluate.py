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
from erv.evaluate.judges.agreement import agreement
from erv.evaluate.judges.panel import FIELD, MAJORITY, headline, outcomes, read_by, verdicts_of
from erv.evaluate.judges.protocol import Judge
from erv.evaluate.metrics import all_metrics, read_completion
from erv.evaluate.outcomes import explanation_terms, heard_outside, shape_of, shape_terms
from erv.evaluate.sets import compound_figures
from erv.files import write_text
from erv.labels import LabelSpace
from erv.manifest import ClipRow, write_table
from erv.prompts import parse_completion
from erv.sentences import explanation_shape

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
        FIELD,
        pa.field("sentences", pa.int32(), nullable=False),
        # The clip's content, as in the manifest; predictions of an older erv don't say.
        pa.field("sha256", pa.string()),
    ]
)
_OPTIONAL = {"sha256"}
# Only under `evaluate.samples`; one row per clip either way.
SAMPLES = pa.field(
    "samples", pa.list_(pa.struct([pa.field("completion", pa.string()), pa.field("predicted", pa.string())]))
)


def judge_completions(
    rows: Sequence[ClipRow], completions: Mapping[str, str], judges: Sequence[Judge]
) -> list[dict[str, Any]]:
    """Reads and judges the completions of one data set.

    Args:
        rows: the clips of one data set that were shown to the policy.
        completions: completion by clip id.
        judges: the panel; each names the emotion of an explanation in the data set's own space.

    Returns:
        Rows of the predictions table, by clip id. `judged` is what the first judge named.

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
    verdicts = verdicts_of(judges, [reading.explanation for reading in readings], space)
    return [
        {
            "dataset": row.dataset,
            "clip_id": row.clip_id,
            "split": row.split,
            "label": row.label,
            "completion": completions[row.clip_id],
            "predicted": reading.predicted,
            "judged": headline(said),
            "verdicts": said,
            "sentences": reading.sentences,
            "sha256": row.sha256,
        }
        for row, reading, said in zip(ordered, readings, verdicts, strict=True)
    ]


def scope_rows(predictions: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The predictions by scope: `overall`, then each data set.

    `overall` pools the clips with label, predicted, judged and the verdicts' emotions in the MAFW space,
    which the others map into. An answer or a judged emotion without a name there becomes `DATASET:NAME`: it
    is wrong, but not the same as no answer, or as an explanation in which nothing is read. A clip whose
    label has no name there counts for its data set alone.

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
        label = to_mafw(row["label"])
        if label is None:
            continue
        read = {name: to_mafw(row[name]) or _apart(dataset, row[name]) for name in ("predicted", "judged")}
        pooled = {**row, "label": label, **read}
        if "verdicts" in row:
            pooled["verdicts"] = [
                {**said, "emotion": to_mafw(said["emotion"]) or _apart(dataset, said["emotion"])}
                for said in row["verdicts"]
            ]
        scopes[OVERALL].append(pooled)
    return scopes


def _apart(dataset: str, name: str | None) -> str | None:
    return None if name is None else f"{dataset}:{name}"


def scope_space(scope: str) -> LabelSpace:
    """The label space of a scope's rows."""
    return LabelSpace.load("mafw" if scope == OVERALL else scope)


def measure(predictions: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | int | None]]:
    """The metrics, numbers of clips and of unreadable answers, and the released values, per scope.

    Besides, what says whether a reward is being gamed: `format`, `repetitive`, `words` and `sentences` (see
    `erv.evaluate.metrics.MEANINGS`), and `repeated`, the share of all sentences that repeat another of the
    same explanation. A data set with compound labels also has the metrics of `erv.evaluate.sets`. In a scope
    without clips all but the numbers of clips and of answers are None, as in a comparison.
    """
    result: dict[str, dict[str, float | int | None]] = {}
    for scope, rows in scope_rows(predictions).items():
        columns = {name: [row[name] for row in rows] for name in ("label", "predicted", "judged")}
        outside = [heard_outside(row) for row in rows]
        values = all_metrics(
            columns["label"], columns["predicted"], columns["judged"], scope_space(scope), outside=outside
        )
        completions = [row["completion"] for row in rows]
        shapes = shape_terms([shape_of(text) for text in completions])
        shape = {name: shapes[name].value or 0.0 for name in ("format", "repetitive", "words")}
        shape["repeated"] = explanation_shape(completions)["repeated"]
        shape["sentences"] = sum(row["sentences"] for row in rows) / max(1, len(rows))
        rounded = {name: round(value, 6) for name, value in shape.items()}
        sets = compound_figures(rows, scope_space(scope))
        counts = {"clips": len(rows), **unread_answers(rows)}
        shares = {**values, **rounded, **sets}
        result[scope] = {**(shares if rows else dict.fromkeys(shares)), **counts}
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


def read_by_panel(
    predictions: Sequence[Mapping[str, Any]], described: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What `metrics.json` says of the panel.

    Args:
        predictions: rows of the predictions table.
        described: what each judge says of itself, with its worth, in the panel's order.

    Returns:
        `judge` (the first, whose readings are the headline), `judges` (all, by name; each with the number of
        its verdicts by scope and outcome, and the explanation metrics of its readings by scope), `majority`
        (these metrics by scope for what more than half of the judges name), `agreement` (over all clips)
        and `unreadable` (explanations that the first judge can't read, by scope).
    """
    scopes = scope_rows(predictions)
    judges = {
        item["name"]: {
            **item,
            "outcomes": {scope: outcomes(rows).get(item["name"], {}) for scope, rows in scopes.items()},
            "metrics": {scope: _explained(rows, item["name"]) for scope, rows in scopes.items()},
        }
        for item in described
    }
    first = described[0]
    unreadable = {
        scope: found.get("unreadable", 0) for scope, found in judges[first["name"]]["outcomes"].items()
    }
    return {
        "judge": dict(first),
        "judges": judges,
        "majority": {scope: _explained(rows, MAJORITY) for scope, rows in scopes.items()},
        "agreement": agreement(scopes[OVERALL], scope_space(OVERALL)),
        "unreadable": unreadable,
    }


def _explained(rows: Sequence[Mapping[str, Any]], judge: str) -> dict[str, float | None]:
    """EEA, EPC, FCR and inconsistency as one judge reads the explanations.

    Inconsistency is None if no answer is right.
    """
    terms = explanation_terms(read_by(rows, judge))
    values = {name: terms[name].value for name in ("EEA", "EPC", "FCR", "inconsistency")}
    return {name: None if value is None else round(value, 6) for name, value in values.items()}


def write_predictions(predictions: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes the predictions, sorted by data set and clip."""
    ordered = sorted(predictions, key=lambda row: (row["dataset"], row["clip_id"]))
    sampled = any("samples" in row for row in ordered)
    schema = SCHEMA.append(SAMPLES) if sampled else SCHEMA
    write_table(pa.Table.from_pylist([dict(row) for row in ordered], schema=schema), path)


def read_predictions(path: Path) -> list[dict[str, Any]]:
    """Reads predictions; `sha256` is None in those of an older erv.

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
    if not _OPTIONAL.issuperset(missing):
        raise EvaluationError(
            f"{path}: lacks the columns {', '.join(missing)}; it was not written by evaluate"
        )
    rows = table.select([name for name in SCHEMA.names if name not in missing]).to_pylist()
    return [{**row, **dict.fromkeys(missing)} for row in rows] if missing else list(rows)


def write_json(value: Any, path: Path) -> None:
    """Writes indented JSON, its keys sorted."""
    write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", path)
