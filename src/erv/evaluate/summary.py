"""The few figures that `dvc metrics diff` compares, out of the many of a comparison."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from erv.evaluate.evaluate import OVERALL
from erv.evaluate.judges.panel import MAJORITY
from erv.evaluate.metrics import METRICS
from erv.files import write_text

MOST = 40  # numbers that can be read in a terminal
_FORM = ("format", "words")
_BY_JUDGE = ("EPC", "inconsistency")


def few_figures(comparison: Mapping[str, Any], candidate: str | None = None) -> dict[str, Any]:
    """The metrics over all clips, by policy, and those of explanations as each further judge reads them.

    Args:
        comparison: from `erv.evaluate.compare.compare`.
        candidate: the policy that comes first, and stays if there are too many.

    Returns:
        Policy -> metric -> value without intervals, the policies beside the candidate below `others`, and
        `judges`: judge -> policy -> metric -> value, but for the headline judge, whose reading the metrics
        are. Values are those of `comparison.json`: the page, DVC and MLflow show the same. They are at most
        `MOST`, so that DVC's tables can be read. If there are more, the readings of judges go first but for
        the majority's, then those too, then format and words, then the last policies.
    """
    readings = comparison.get("judges", {})
    headline = comparison.get("judge", {}).get("name", next(iter(readings), None))
    further = [name for name in readings if name != headline]
    policies = sorted(comparison["policies"], key=lambda policy: policy != candidate)
    full = (*METRICS, *_FORM)
    for metrics, judges in ((full, further), (full, [MAJORITY]), (full, []), (METRICS, [])):
        found = _values(comparison, metrics, policies)
        read = {name: _values(readings[name], _BY_JUDGE, policies) for name in judges if name in further}
        if _count(found) + sum(map(_count, read.values())) <= MOST:
            found = _apart(found, candidate)
            return {**found, "judges": read} if read else found
    return _apart(_values(comparison, METRICS, policies[: MOST // len(METRICS)]), candidate)


def write_figures(comparison: Mapping[str, Any], candidate: str, path: Path) -> None:
    """Writes `few_figures` as JSON, in their order: in a narrow terminal, DVC shows the first alone.

    The others' names begin alike, so that `dvc exp show --drop` can leave them out whatever they are called.
    """
    write_text(json.dumps(few_figures(comparison, candidate), indent=2) + "\n", path)


def _apart(figures: Mapping[str, Any], candidate: str | None) -> dict[str, Any]:
    if candidate is None or candidate not in figures:
        return dict(figures)
    others = {policy: values for policy, values in figures.items() if policy != candidate}
    return {candidate: figures[candidate], **({"others": others} if others else {})}


def _count(figures: Mapping[str, Mapping[str, Any]]) -> int:
    return sum(map(len, figures.values()))


def _values(read: Mapping[str, Any], metrics: Sequence[str], policies: Sequence[str]) -> dict[str, Any]:
    overall = {policy: read["policies"][policy][OVERALL] for policy in policies if policy in read["policies"]}
    return {
        policy: {metric: values[metric]["value"] for metric in metrics if metric in values}
        for policy, values in overall.items()
    }
