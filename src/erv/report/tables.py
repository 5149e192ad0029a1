"""The tables behind the report's main figures, which `dvc plots` draws; equal inputs give equal bytes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from erv.evaluate.evaluate import OVERALL, scope_rows, unread_kind
from erv.evaluate.intervals import undefined
from erv.evaluate.metrics import JUDGED
from erv.files import whole_folder
from erv.report import verdicts

METRICS, DIFFERENCES, CONFUSION = "metrics.csv", "differences.csv", "confusion.csv"
_COLUMNS = {
    METRICS: ("judge", "policy", "metric", "value", "low", "high"),
    DIFFERENCES: ("judge", "policies", "metric", "value", "low", "high", "verdict"),
    CONFUSION: ("policy", "truth", "answer"),
}
NO_JUDGE = "answers alone"  # WAR and UAR, which no judge decides


def write_tables(
    predictions: Mapping[str, Sequence[Mapping[str, Any]]], comparison: Mapping[str, Any], folder: Path
) -> None:
    """Writes `metrics.csv`, `differences.csv` (both in percent) and `confusion.csv`, over all clips.

    Args:
        predictions: rows by policy, in the order of the comparison.
        comparison: with figures by judge.
        folder: where they go; what is in it is replaced.
    """
    with whole_folder(folder) as temporary:
        _write(_metrics(comparison), temporary / METRICS)
        _write(_differences(comparison), temporary / DIFFERENCES)
        _write(_confusion(predictions), temporary / CONFUSION)


def _metrics(comparison: Mapping[str, Any]) -> Iterable[Sequence[object]]:
    for judge, part, metric in _figures(comparison):
        for policy in comparison["order"]:
            yield (
                judge,
                policy,
                metric,
                *_percent(part["policies"][policy][OVERALL].get(metric) or undefined()),
            )


def _differences(comparison: Mapping[str, Any]) -> Iterable[Sequence[object]]:
    for judge, part, metric in _figures(comparison):
        for later, earlier in _pairs(comparison):
            item = verdicts.difference(part, later, earlier, metric)
            word = verdicts.verdict(part, later, earlier, metric)
            yield judge, f"{later} - {earlier}", metric, *_percent(item), word


def _figures(comparison: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any], str]]:
    """Judge, where its figures are, and metric."""
    shown = verdicts.shown_metrics(comparison)
    yield from ((NO_JUDGE, comparison, metric) for metric in shown if metric not in JUDGED)
    for judge in verdicts.judges_of(comparison):
        part = comparison["judges"][judge]
        yield from ((judge, part, metric) for metric in shown if metric in JUDGED)


def _pairs(comparison: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    order = comparison["order"]
    return ((later, earlier) for i, later in enumerate(order) for earlier in order[:i])


def _confusion(predictions: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterable[Sequence[object]]:
    words = {"outside": "not a label", "malformed": "no answer"}
    for policy, rows in predictions.items():
        for row in scope_rows(rows)[OVERALL]:
            yield policy, row["label"], row["predicted"] or words[unread_kind(row) or "outside"]


def _percent(item: Mapping[str, float | None]) -> list[str]:
    """Value and interval; empty where a metric is not defined."""
    values = (item[end] for end in ("value", "low", "high"))
    return ["" if value is None else f"{100 * value:.2f}" for value in values]


def _write(records: Iterable[Sequence[object]], path: Path) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS[path.name])
    writer.writerows(records)
    path.write_text(text.getvalue(), encoding="utf-8", newline="\n")
