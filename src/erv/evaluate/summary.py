"""The few figures that `dvc metrics diff` compares, out of the many of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from erv.evaluate.evaluate import OVERALL
from erv.evaluate.metrics import METRICS

_FORM = ("format", "words")
_BY_JUDGE = ("EPC", "inconsistency")


def few_figures(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics over all clips, by policy, and those of explanations as each further judge reads them.

    Args:
        comparison: from `erv.evaluate.compare.compare`.

    Returns:
        Policy -> metric -> value without intervals, and `judges`: judge -> policy -> metric -> value, but for
        the headline judge, whose reading the metrics are. Values are those of `comparison.json`: the
        page, DVC and MLflow show the same. They are few, so that DVC's tables can be read: 36 with three
        policies and two judges.
    """
    figures = _values(comparison, (*METRICS, *_FORM))
    readings = comparison.get("judges", {})
    headline = comparison.get("judge", {}).get("name", next(iter(readings), None))
    judges = {name: _values(judge, _BY_JUDGE) for name, judge in readings.items() if name != headline}
    return {**figures, "judges": judges} if judges else figures


def _values(read: Mapping[str, Any], metrics: tuple[str, ...]) -> dict[str, Any]:
    return {
        policy: {metric: scopes[OVERALL][metric]["value"] for metric in metrics if metric in scopes[OVERALL]}
        for policy, scopes in read["policies"].items()
    }
