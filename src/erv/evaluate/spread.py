"""Several comparisons of the same policies in one table: means, spread, how often a difference is clear.

The comparisons differ in seed, fold or corpus. A single one has intervals, which say how far its figures
would move with other clips; these say how far they move with another training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from erv.errors import EvaluationError
from erv.evaluate.compare import difference, in_reading
from erv.evaluate.evaluate import OVERALL
from erv.evaluate.metrics import JUDGED, METRICS, NEITHER_IS_BETTER
from erv.evaluate.significance import BETTER, WORSE, in_words

NOT_APPLICABLE = "-"


def spread(values: Sequence[float | None]) -> dict[str, float | int | None]:
    """Mean, standard deviation, least and greatest of the values that are defined, and their number.

    Returns:
        `mean`, `sd` (of the sample; None for a single value), `min`, `max` and `runs`; None without a value.
    """
    known = [value for value in values if value is not None]
    if not known:
        return {"mean": None, "sd": None, "min": None, "max": None, "runs": 0}
    figures = {"mean": mean(known), "min": min(known), "max": max(known)}
    sd = round(stdev(known), 6) if len(known) > 1 else None
    return {**{name: round(value, 6) for name, value in figures.items()}, "sd": sd, "runs": len(known)}


def summarize(comparisons: Mapping[str, Mapping[str, Any]], scope: str = OVERALL) -> dict[str, Any]:
    """The spread of all figures over several comparisons.

    Args:
        comparisons: content of `comparison.json` by name of the run.
        scope: `overall` or a data set.

    Returns:
        `runs` (names), `order` (of the policies), `policies` (policy -> metric -> what `spread` gives),
        `differences` ("later-earlier" -> metric -> the same, and in how many runs the interval of the
        difference lies on the `better` or the `worse` side of zero), and `judges`: judge -> `policies` and
        `differences` in its reading, for the judges of all runs. Metrics that don't apply to a policy (see
        `erv.evaluate.applicable`) are absent from its figures and from its differences.

    Raises:
        EvaluationError: there is no comparison, or they are not of the same policies, or lack the scope.
    """
    if not comparisons:
        raise EvaluationError("no comparison to summarize; run `erv repeat run` first")
    first = next(iter(comparisons))
    order = list(comparisons[first]["order"])
    for name, comparison in comparisons.items():
        if list(comparison["order"]) != order:
            raise EvaluationError(
                f"runs {first!r} and {name!r} compare different policies ({', '.join(order)};"
                f" {', '.join(comparison['order'])}); repeat them with the same compare.policies"
            )
        if scope not in comparison["clips"]:
            raise EvaluationError(
                f"run {name!r} has no clips of {scope!r}; it has {', '.join(comparison['clips'])}"
            )
    runs = list(comparisons.values())
    shared = [judge for judge in runs[0].get("judges", {}) if all(judge in r.get("judges", {}) for r in runs)]
    return {
        "runs": list(comparisons),
        "order": order,
        "scope": scope,
        **_figures(runs, order, scope),
        "judges": {
            judge: _figures([in_reading(run, judge) for run in runs], order, scope, JUDGED)
            for judge in shared
        },
    }


def _figures(
    runs: Sequence[Mapping[str, Any]], order: Sequence[str], scope: str, metrics: Sequence[str] | None = None
) -> dict[str, Any]:
    applicable = {policy: _applicable(runs, policy, scope, metrics) for policy in order}
    found: dict[str, Any] = {"policies": {}, "differences": {}}
    for i, later in enumerate(order):
        found["policies"][later] = {
            metric: spread([run["policies"][later][scope][metric]["value"] for run in runs])
            for metric in applicable[later]
        }
        for earlier in order[:i]:
            found["differences"][f"{later}-{earlier}"] = {
                metric: _difference([difference(run, later, earlier, scope, metric) for run in runs], metric)
                for metric in applicable[later]
                if metric in applicable[earlier]
            }
    return found


def _applicable(
    runs: Sequence[Mapping[str, Any]], policy: str, scope: str, metrics: Sequence[str] | None
) -> list[str]:
    """The metrics that a policy has in every run: one that doesn't explain has none about explanations."""
    figures = [run["policies"][policy][scope] for run in runs]
    return [metric for metric in metrics or figures[0] if all(metric in mine for mine in figures)]


def _difference(intervals: Sequence[Mapping[str, Any]], metric: str) -> dict[str, Any]:
    figures: dict[str, Any] = spread([interval["value"] for interval in intervals])
    if metric not in NEITHER_IS_BETTER:
        said = [in_words(metric, dict(interval)) for interval in intervals]
        figures |= {BETTER: said.count(BETTER), WORSE: said.count(WORSE)}
    return figures


def policy_rows(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """A row per policy: `74.0 ± 2.1 (70.2 to 77.9)`, in percent, mean, standard deviation and range.

    A metric that doesn't apply to a policy is a dash.
    """
    figures = summary["policies"]
    return [
        {
            "policy": policy,
            **{m: _percent(figures[policy][m]) if m in figures[policy] else NOT_APPLICABLE for m in METRICS},
        }
        for policy in summary["order"]
    ]


def difference_rows(
    summary: Mapping[str, Any], policy: str, against: str, judge: str | None = None
) -> dict[str, str]:
    """A row on a pair: `+12.0 ± 3.4 (+7.5 to +18.1), better in 9 of 10`, in percentage points.

    It is `policy` minus `against`, whichever comes first in the comparison. A metric that doesn't apply to
    both is a dash.
    """
    read = summary if judge is None else summary["judges"][judge]
    differences = _of_pair(read["differences"], policy, against)
    row = {"difference": f"{policy} - {against}", "read by": judge or "first judge"}
    read_here = METRICS if judge is None else JUDGED
    for metric, figures in differences.items():
        if metric not in read_here:
            continue
        clear = f"better in {figures[BETTER]} of {figures['runs']}"
        if figures[WORSE]:
            clear += f", worse in {figures[WORSE]}"
        row[metric] = f"{_percent(figures, '+')}, {clear}"
    return row | {metric: NOT_APPLICABLE for metric in read_here if metric not in differences}


def _of_pair(differences: Mapping[str, Any], policy: str, against: str) -> dict[str, Any]:
    """The differences of a pair by metric, turned round if the comparison holds them the other way round."""
    if f"{policy}-{against}" in differences:
        return dict(differences[f"{policy}-{against}"])
    return {metric: _turned(figures) for metric, figures in differences[f"{against}-{policy}"].items()}


def _turned(figures: Mapping[str, Any]) -> dict[str, Any]:
    turned = dict(figures)
    if figures["mean"] is not None:
        # Subtracted from 0, not negated: a difference of 0 stays +0.0 in tables.
        turned |= {"mean": 0 - figures["mean"], "min": 0 - figures["max"], "max": 0 - figures["min"]}
    if BETTER in figures:
        turned |= {BETTER: figures[WORSE], WORSE: figures[BETTER]}
    return turned


def _percent(figures: Mapping[str, Any], sign: str = "") -> str:
    if figures["mean"] is None:
        return "none right"
    middle, low, high = (f"{100 * figures[name]:{sign}.1f}" for name in ("mean", "min", "max"))
    deviation = "" if figures["sd"] is None else f" ± {100 * figures['sd']:.1f}"
    return f"{middle}{deviation} ({low} to {high})"
