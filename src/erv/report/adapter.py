"""To be removed once `evaluate` writes `verdicts` and `compare` writes `judges`: both from the one judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from erv.report.verdicts import BETTER, INCONSISTENCY, JUDGED, UNKNOWN, WORSE


def with_single_judge(
    predictions: Mapping[str, Sequence[Mapping[str, Any]]], comparison: Mapping[str, Any]
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]:
    """Predictions with `verdicts` from the column `judged`, and the comparison with that judge's figures.

    What is there already stays as it is.
    """
    judge = comparison["judge"]
    rows = {
        policy: [
            {**row, "verdicts": row.get("verdicts") or [_verdict(judge["name"], row["judged"])]}
            for row in items
        ]
        for policy, items in predictions.items()
    }
    if "judges" in comparison:
        return rows, dict(comparison)
    comparison = {**comparison, "verdicts": in_words(comparison["differences"])}
    worth = {
        "accuracy": judge["held_out_accuracy"],
        "low": judge["held_out_low"],
        "high": judge["held_out_high"],
        "texts": judge["held_out"],
        "recall": judge["held_out_recall"],
    }
    figures = {
        part: {
            name: {scope: {m: items[m] for m in JUDGED if m in items} for scope, items in scopes.items()}
            for name, scopes in comparison[part].items()
        }
        for part in ("policies", "differences", "verdicts")
    }
    return rows, {**comparison, "judges": {judge["name"]: {"worth": worth, **figures}}}


def in_words(differences: Mapping[str, Any]) -> dict[str, Any]:
    """A verdict for each difference: better or worse if its interval lies on one side of zero."""
    return {
        pair: {
            scope: {metric: {"verdict": _word(metric, item)} for metric, item in items.items()}
            for scope, items in scopes.items()
        }
        for pair, scopes in differences.items()
    }


def _word(metric: str, item: Mapping[str, float]) -> str:
    sign = -1 if metric == INCONSISTENCY else 1
    low, high = sorted((sign * item["low"], sign * item["high"]))
    return BETTER if low > 0 else WORSE if high < 0 else UNKNOWN


def _verdict(judge: str, emotion: str | None) -> dict[str, Any]:
    return {"judge": judge, "outcome": "silent" if emotion is None else "named", "emotion": emotion}
