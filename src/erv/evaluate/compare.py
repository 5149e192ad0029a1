"""Compares policies on the same clips: every metric and paired difference with its interval, and verdicts.

Clips are drawn with replacement, with the same draw for all policies, so that easy and hard clips, which all
policies share, do not blur the difference between two (paired percentile bootstrap; Efron and Tibshirani,
1993). Where too few clips vary for that, `erv.evaluate.intervals` uses score intervals. Whether a difference
is more than chance, `erv.evaluate.significance` decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from erv.errors import EvaluationError
from erv.evaluate.applicable import is_about_explanations
from erv.evaluate.by_judge import readings_of, shared_panel
from erv.evaluate.draws import Key
from erv.evaluate.evaluate import scope_rows, scope_space
from erv.evaluate.figures import HEADLINE, Scope
from erv.evaluate.intervals import Interval
from erv.evaluate.judges.panel import read_by
from erv.evaluate.metrics import METRICS, RELEASED, all_metrics
from erv.evaluate.outcomes import (
    Row,
    Shape,
    Term,
    answer_terms,
    explanation_terms,
    in_order,
    shape_of,
    shape_terms,
)
from erv.evaluate.sets import answer_set_terms, explanation_set_terms
from erv.labels import LabelSpace

# What makes predictions with the content of their clips of those that were kept.
ANEW = "run `erv run --force evaluate`"
READING_CODE = "code that reads answers"


def compare(
    predictions: Mapping[str, Sequence[Row]],
    *,
    samples: int,
    confidence: float,
    seed: int,
    worth: Mapping[str, Any] | None = None,
    unexplained: Collection[str] = (),
) -> dict[str, Any]:
    """Compares policies.

    Args:
        predictions: rows of the predictions table by policy, in the order of the comparison (the earliest
            stage of training first).
        samples: number of bootstrap draws.
        confidence: confidence level of the intervals, e.g. 0.95.
        seed: seed of the draws; each scope has its own stream.
        worth: what is known of each judge of the panel, see `erv.evaluate.by_judge.worth_of_judges`. With it
            the figures are also given in the reading of each judge, from the column `verdicts`.
        unexplained: policies that answer without explaining. Figures about explanations don't apply to them:
            they are absent, and not among the metrics that are tested together.

    Returns:
        `order` (of the policies), `policies` (policy -> scope -> metric -> value, low, high), `differences`
        ("later-earlier" -> scope -> metric -> value, low, high, the later policy's minus the earlier one's),
        `verdicts` ("later-earlier" -> scope -> metric -> what `erv.evaluate.significance.verdicts` says),
        `classes` (policy -> scope -> emotion -> metric -> value, and `clips` and `precision`), `clips` (by
        scope), `absent` (scope -> emotions of its space without a clip), `released` (policy -> scope -> UAR
        and EEA as the released code counts them), `same_answers` (pairs "later-earlier" with the same
        completion for every clip), `confidence` and `bootstrap_samples`. Scopes are `overall` and the data
        sets; metrics are `METRICS`, `FURTHER` and, in data sets with compound labels, those of
        `erv.evaluate.sets`; only the first get verdicts.
        With `worth` also `judges`: judge -> its `worth`, and `policies`, `differences`, `verdicts` and
        `classes` of the metrics that it decides. If there are several, the last is `majority`, whose worth is
        None.

    Raises:
        EvaluationError: there is no policy or no clip, the policies were not evaluated on the same clips, or
            the predictions have no verdicts of the judges in `worth`.
    """
    check_paired(predictions)
    names = list(predictions)
    silent = frozenset(unexplained)
    pairs = [(later, earlier) for i, later in enumerate(names) for earlier in names[:i]]
    readings = _readings(predictions, worth)
    result: dict[str, Any] = {
        "order": names,
        **_empty(names, pairs),
        "clips": {},
        "absent": {},
        "released": {name: {} for name in names},
        "same_answers": [
            f"{later}-{earlier}"
            for later, earlier in pairs
            if _completions(predictions[later]) == _completions(predictions[earlier])
        ],
        "confidence": confidence,
        "bootstrap_samples": samples,
    }
    targets = {HEADLINE: result}
    if worth is not None:
        for judge in readings:
            if judge != HEADLINE:
                targets[judge] = {"worth": worth.get(judge), **_empty(names, pairs)}
        result["judges"] = {judge: target for judge, target in targets.items() if judge != HEADLINE}
    shapes = {name: _shapes(rows) for name, rows in predictions.items()}
    by_scope = {
        judge: {name: scope_rows(rows) for name, rows in by_policy.items()}
        for judge, by_policy in readings.items()
    }
    for scope in by_scope[HEADLINE][names[0]]:
        rows = {
            name: {judge: in_order(by_policy[name][scope]) for judge, by_policy in by_scope.items()}
            for name in names
        }
        headline = {name: rows[name][HEADLINE] for name in names}
        labels = [row["label"] for row in headline[names[0]]]
        counts = Counter(labels)
        result["clips"][scope] = len(labels)
        result["absent"][scope] = [name for name in scope_space(scope).names if name not in counts]
        for name in names:
            released = _released(headline[name], scope)
            result["released"][name][scope] = {
                metric: value
                for metric, value in released.items()
                if not (name in silent and is_about_explanations(metric))
            }
        Scope(
            scope,
            {name: _terms(rows[name], shapes[name], scope_space(scope)) for name in names},
            labels,
            {name: [row["predicted"] for row in headline[name]] for name in names},
            confidence,
            seed,
            silent,
        ).fill(targets, samples)
    return result


def _readings(
    predictions: Mapping[str, Sequence[Row]], worth: Mapping[str, Any] | None
) -> dict[str, Mapping[str, Sequence[Row]]]:
    """The predictions as they are, and in the reading of each judge of the panel if its worth is given."""
    readings: dict[str, Mapping[str, Sequence[Row]]] = {HEADLINE: predictions}
    if worth is None:
        return readings
    panel = shared_panel(predictions)
    if set(panel) != set(worth):
        raise EvaluationError(
            f"the predictions were read by {', '.join(panel) or 'no judge'}, but metrics.json describes"
            f" {', '.join(worth) or 'none'}; run `dvc repro evaluate` again"
        )
    for judge in readings_of(panel):
        readings[judge] = {name: read_by(rows, judge) for name, rows in predictions.items()}
    return readings


def _empty(names: Sequence[str], pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Figures of each policy and each pair, to be filled scope by scope."""
    of_policies: dict[str, Any] = {key: {name: {} for name in names} for key in ("policies", "classes")}
    of_pairs: dict[str, Any] = {
        key: {f"{later}-{earlier}": {} for later, earlier in pairs} for key in ("differences", "verdicts")
    }
    return of_policies | of_pairs


def _shapes(rows: Sequence[Row]) -> dict[tuple[str, str], Shape]:
    """The shape of each completion, read once for all scopes."""
    return {(row["dataset"], row["clip_id"]): shape_of(row["completion"]) for row in rows}


def _terms(
    rows: Mapping[str, Sequence[Row]], shapes: Mapping[tuple[str, str], Shape], space: LabelSpace
) -> dict[Key, Term]:
    """What each clip adds to each metric of a policy: its rows in one scope by judge, all `in_order`."""
    terms: dict[Key, Term] = {}
    for judge, items in rows.items():
        found = explanation_terms(items) | explanation_set_terms(items, space)
        if judge == HEADLINE:
            mine = [shapes[row["dataset"], row["clip_id"]] for row in items]
            of_answers = answer_terms(items) | answer_set_terms(items, space)
            found = {**of_answers, **found, **shape_terms(mine)}
        terms |= {(judge, metric): term for metric, term in found.items()}
    return terms


def same_answers(comparison: Mapping[str, Any], policy: str, against: str) -> bool:
    """Whether two policies of a comparison gave the same completion for every clip."""
    return bool({f"{policy}-{against}", f"{against}-{policy}"} & set(comparison["same_answers"]))


def difference(comparison: Mapping[str, Any], policy: str, against: str, scope: str, metric: str) -> Interval:
    """The interval of `policy` minus `against`, whichever way round the comparison holds it.

    Raises:
        EvaluationError: the two were not compared, or the metric doesn't apply to both.
    """
    differences = comparison["differences"]
    for pair in (f"{policy}-{against}", f"{against}-{policy}"):
        if pair in differences and metric not in differences[pair][scope]:
            raise EvaluationError(
                f"{metric} doesn't apply to both {policy!r} and {against!r}: one gives no explanations"
            )
    if f"{policy}-{against}" in differences:
        return dict(differences[f"{policy}-{against}"][scope][metric])
    if f"{against}-{policy}" in differences:
        other = differences[f"{against}-{policy}"][scope][metric]
        if other["value"] is None:
            return dict(other)
        return {"value": -other["value"], "low": -other["high"], "high": -other["low"]}
    raise EvaluationError(f"policies {policy!r} and {against!r} were not compared; evaluate and report both")


def check_paired(predictions: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Raises EvaluationError unless all policies have the same clips: ids, labels and content.

    Where no policy's predictions have the content, which an older erv didn't record, ids and labels count.
    """
    if not predictions:
        raise EvaluationError("no policy to compare; run `dvc repro evaluate` first")
    first, *others = predictions
    lacking = [name for name, rows in predictions.items() if lacks_content(rows)]
    if len(lacking) not in (0, len(predictions)):
        raise EvaluationError(
            f"predictions of {', '.join(lacking)} lack the content of their clips, as an older erv wrote"
            f" them, and those of the others have it; {ANEW}"
        )
    expected = _clips(predictions[first])
    if not expected:
        raise EvaluationError(f"policy {first!r} was evaluated on no clip")
    for name in others:
        found = _clips(predictions[name])
        if found != expected:
            odd = min(key for key in {*found, *expected} if found.get(key) != expected.get(key))
            raise EvaluationError(
                f"policies {first!r} and {name!r} were not evaluated on the same clips (first: {odd[0]}"
                f" {odd[1]!r}); evaluate both again"
            )


def lacks_content(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether predictions don't say what their clips hold, as those of an older erv."""
    return any(row.get("sha256") is None for row in rows)


def _clips(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], tuple[str, str | None]]:
    """Label and content of each clip; the content is None where an older erv didn't record it."""
    return {(row["dataset"], row["clip_id"]): (row["label"], row.get("sha256")) for row in rows}


def in_reading(comparison: Mapping[str, Any], judge: str | None) -> Mapping[str, Any]:
    """The comparison in the reading of a judge, or of the `majority`: for `difference` and the like.

    Args:
        comparison: from `compare`, with `judges` unless the judge is None.
        judge: None for the headline judge.

    Raises:
        EvaluationError: the comparison has no figures of this judge.
    """
    if judge is None:
        return comparison
    known = comparison.get("judges", {})
    if judge not in known:
        raise EvaluationError(
            f"the comparison has no figures of judge {judge!r}, only of {', '.join(known) or 'none'};"
            " name one of evaluate.judges in params.yaml, or run `dvc repro evaluate report` again"
        )
    return {**comparison, **known[judge]}


def measuring(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """What two policies must share for their kept readings to be comparable.

    Args:
        metrics: content of a policy's `metrics.json`.

    Returns:
        The judge's digest, the decoding settings and the digest of the code that read (None of an older erv,
        which didn't record it), or None if the metrics lack one of the first two.
    """
    digest, decoding = metrics.get("judge", {}).get("digest"), metrics.get("decoding")
    if not digest or not decoding:
        return None
    return {"judge": digest, "decoding": decoding, READING_CODE: metrics.get("code", {}).get("reading")}


def panel_of(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The digest of each judge of the panel, from a policy's `metrics.json`; empty if that knows no panel."""
    return {name: judge.get("digest") for name, judge in metrics.get("judges", {}).items()}


def check_measured_alike(evaluations: Mapping[str, Mapping[str, Any]], *, of_one_state: bool = False) -> None:
    """Raises EvaluationError unless all policies had the same judges, decoding and code that read answers.

    Args:
        evaluations: content of `metrics.json` by policy.
        of_one_state: they are of one state of the pipeline. Then DVC knows whether the code counts, and
            `erv accept` may have told it that a change doesn't.
    """
    first = next(iter(evaluations))
    expected = measuring(evaluations[first])
    for name, metrics in evaluations.items():
        found = measuring(metrics)
        if found is None or expected is None:
            raise EvaluationError(
                f"policy {name!r}: its metrics.json does not say which judge read it and how it was decoded;"
                " run `dvc repro evaluate` again"
            )
        parts = [part for part in expected if not (of_one_state and part == READING_CODE)]
        differing = [part for part in parts if found[part] != expected[part]]
        if panel_of(metrics) != panel_of(evaluations[first]):
            differing.append("panel of judges")
        if differing:
            raise EvaluationError(
                f"policies {first!r} and {name!r} differ in their {' and '.join(differing)}, so they"
                " can't be compared; run `dvc repro evaluate` for both"
            )


def metrics_table(comparison: Mapping[str, Any], scope: str = "overall") -> list[dict[str, str]]:
    """A row per policy with its metrics as `74.0 (70.2 to 77.9)`, in percent, for a terminal or a page."""
    rows = []
    for policy in comparison["order"]:
        scopes = comparison["policies"][policy]
        row = {"policy": policy, "clips": str(comparison["clips"][scope])}
        for metric in METRICS:
            item = scopes[scope].get(metric)
            if item is None:  # see `erv.evaluate.applicable`
                row[metric] = "-"
                continue
            row[metric] = (
                ("none right" if metric == "inconsistency" else "no clip")
                if item["value"] is None
                else f"{100 * item['value']:.1f} ({100 * item['low']:.1f} to {100 * item['high']:.1f})"
            )
        rows.append(row)
    return rows


def table_notes(comparison: Mapping[str, Any], scope: str = "overall") -> list[str]:
    """What a reader of `metrics_table` has to know: intervals, absent emotions, the released values."""

    def released(metric: str) -> str:
        return ", ".join(
            f"{policy} {100 * scopes[scope][metric]:.1f}"
            for policy, scopes in comparison["released"].items()
            if metric in scopes[scope]
        )

    absent = comparison["absent"][scope]
    lacking = f"no clip has {', '.join(absent)}" if absent else "all of them do"
    return [
        "Intervals are percentiles of a bootstrap over clips, paired for differences; where few clips count"
        " or few don't, and where two policies differ on few, they are score intervals (Wilson, Tango). For"
        " UAR that is so if it holds for any emotion.",
        "Inconsistency is the share of the right answers whose explanation names another emotion; lower is"
        " better.",
        f"UAR is averaged over the emotions that occur among the clips; {lacking}. The method's released code"
        " averages over the whole label space, with 0 for an absent emotion, and on MAFW leaves answers that"
        f" can't be read out of their emotion's total: {released('UAR')}.",
        "EEA reads the explanation alone. The released code counts 0 where the answer can't be read:"
        f" {released('EEA')}.",
    ]


def format_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows as a Markdown table, aligned so that it also reads well as plain text."""
    if not rows:
        return ""
    header = list(rows[0])
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in header}

    def line(cells: Mapping[str, str]) -> str:
        return "| " + " | ".join(cells[name].ljust(widths[name]) for name in header) + " |"

    rule = "|" + "|".join("-" * (widths[name] + 2) for name in header) + "|"
    return "\n".join([line({name: name for name in header}), rule, *(line(row) for row in rows)])


def _completions(rows: Sequence[Row]) -> dict[tuple[str, str], str]:
    return {(row["dataset"], row["clip_id"]): row["completion"] for row in rows}


def _released(rows: Sequence[Row], scope: str) -> dict[str, float]:
    truth, predicted, judged = ([row[name] for row in rows] for name in ("label", "predicted", "judged"))
    values = all_metrics(truth, predicted, judged, scope_space(scope))
    return {name: float(values[f"{name}_released"] or 0.0) for name in RELEASED}
