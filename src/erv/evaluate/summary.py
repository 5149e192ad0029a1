"""The few figures that `dvc metrics diff` compares, out of the many of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from erv.evaluate.evaluate import OVERALL
from erv.evaluate.metrics import FURTHER, JUDGED, METRICS


def few_figures(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics over all clips, by policy, and in the reading of each judge; values without intervals.

    Args:
        comparison: from `erv.evaluate.compare.compare`.

    Returns:
        Policy -> metric -> value, and `judges`: judge -> policy -> metric -> value, if the comparison has it.
        The values are those of `comparison.json`, so the page, DVC and MLflow show the same.
    """
    figures = _values(comparison, (*METRICS, *FURTHER))
    judges = {name: _values(judge, JUDGED) for name, judge in comparison.get("judges", {}).items()}
    return {**figures, "judges": judges} if judges else figures


def _values(read: Mapping[str, Any], metrics: tuple[str, ...]) -> dict[str, Any]:
    return {
        policy: {metric: scopes[OVERALL][metric]["value"] for metric in metrics if metric in scopes[OVERALL]}
        for policy, scopes in read["policies"].items()
    }
