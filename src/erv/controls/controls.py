"""Metrics of a policy under each control, beside the plain ones and with the paired difference to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from erv.errors import EvaluationError
from erv.evaluate.compare import compare
from erv.evaluate.evaluate import SCHEMA, scope_rows
from erv.manifest import write_table

PLAIN = "plain"


def measure_control(
    control: str,
    rows: Sequence[Mapping[str, Any]],
    plain: Sequence[Mapping[str, Any]],
    *,
    samples: int,
    confidence: float,
    seed: int,
    explains: bool = True,
) -> dict[str, Any]:
    """Compares a policy under a control with the same policy on the same clips as they are.

    Args:
        control: its name.
        rows: rows of the predictions table under the control.
        plain: rows of the plain evaluation; those of other clips are ignored.
        samples: number of bootstrap draws.
        confidence: of the intervals, e.g. 0.95.
        seed: of the draws.
        explains: whether the policy explains its answers; else what says something of explanations is left
            out, as in `comparison.json`.

    Returns:
        `clips` by scope; `metrics`, `plain` and `difference` (the control's minus the plain one's), each by
        scope and metric with value, low and high; `same_answer` and `chance` by scope. The last one is the
        WAR to expect of answers that have nothing to do with the clips; see `chance`.

    Raises:
        EvaluationError: no clip is left, or the plain evaluation lacks one.
    """
    if not rows:
        raise EvaluationError(
            f"control {control!r} leaves no clip: none has what it takes away; leave it out of controls.kinds"
        )
    known = {(row["dataset"], row["clip_id"]): row for row in plain}
    lost = [row for row in rows if (row["dataset"], row["clip_id"]) not in known]
    if lost:
        raise EvaluationError(
            f"clip {lost[0]['clip_id']!r} of {lost[0]['dataset']} is not in the plain evaluation; run"
            " `dvc repro evaluate` first"
        )
    same = [known[row["dataset"], row["clip_id"]] for row in rows]
    found = compare(
        {PLAIN: same, control: rows},
        samples=samples,
        confidence=confidence,
        seed=seed,
        unexplained=() if explains else (PLAIN, control),
    )
    before, after = scope_rows(same), scope_rows(rows)
    return {
        "clips": found["clips"],
        "metrics": found["policies"][control],
        "plain": found["policies"][PLAIN],
        "difference": found["differences"][f"{control}-{PLAIN}"],
        "same_answer": {scope: round(_agreement(before[scope], after[scope]), 6) for scope in found["clips"]},
        "chance": {scope: round(chance(before[scope]), 6) for scope in found["clips"]},
    }


def chance(rows: Sequence[Mapping[str, Any]]) -> float:
    """The WAR to expect if each clip got the answer to another clip of its data set, drawn at random.

    Args:
        rows: rows of the plain evaluation, in one scope.

    Returns:
        The mean over all pairs of different clips of a data set, 0..1; an only clip counts as wrong.
    """
    by_dataset: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_dataset.setdefault(row["dataset"], []).append(row)
    expected = 0.0
    for items in by_dataset.values():
        if len(items) < 2:
            continue
        labels, answers = Counter(row["label"] for row in items), Counter(row["predicted"] for row in items)
        own = sum(row["label"] == row["predicted"] for row in items)
        pairs = sum(count * answers[label] for label, count in labels.items()) - own
        expected += pairs / (len(items) - 1)
    return expected / len(rows) if rows else 0.0


def write_answers(answers: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes the answers under all controls.

    Args:
        answers: rows of the predictions table, each with `control` and `shown`, the clip whose frames and
            sound the policy got.
        path: parquet file.
    """
    more = [pa.field("control", pa.string(), nullable=False), pa.field("shown", pa.string(), nullable=False)]
    ordered = sorted(answers, key=lambda row: (row["control"], row["dataset"], row["clip_id"]))
    schema = pa.schema([*more, *SCHEMA])
    write_table(pa.Table.from_pylist([dict(row) for row in ordered], schema=schema), path)


def _agreement(one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> float:
    """The share of clips with the same readable answer in both."""
    answers = {(row["dataset"], row["clip_id"]): row["predicted"] for row in one}
    same = sum(
        row["predicted"] is not None and row["predicted"] == answers[row["dataset"], row["clip_id"]]
        for row in other
    )
    return same / len(other) if other else 0.0
