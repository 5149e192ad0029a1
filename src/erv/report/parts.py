"""Parts of the page that are computed: judges side by side, differences, confusion, the data sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from erv.evaluate.compare import difference
from erv.evaluate.evaluate import OVERALL, scope_rows, scope_space, unread_kind
from erv.evaluate.intervals import undefined
from erv.evaluate.judges.panel import MAJORITY
from erv.evaluate.metrics import (
    FURTHER,
    JUDGED,
    LOWER_IS_BETTER,
    NEITHER_IS_BETTER,
    recognition_metrics,
)
from erv.evaluate.sets import EXPLANATION_SETS, SET_METRICS
from erv.evaluate.significance import in_words
from erv.figures.charts import class_balance_svg, durations_svg
from erv.figures.pages import quarantine_table
from erv.manifest import SPLITS
from erv.report import charts, verdicts
from erv.report.datasets import DatasetEvidence


def judges(comparison: Mapping[str, Any], subject: str) -> dict[str, Any]:
    """The figures by judge, side by side, over all clips, of the policies that explain.

    Args:
        comparison: with figures by judge.
        subject: the policy of the headline.

    Returns:
        `names` of the judges and their majority, how many `judges` there are, `worth` by name in words,
        `unnamed`: by policy and judge the explanations in which it heard no emotion of the list, by outcome
        (None for the majority), `alpha` by policy: Krippendorff's, where there are several judges, and
        `blocks`, one per metric: `values` by policy and `against`, verdict and interval of the subject minus
        each other one (none if the subject doesn't explain), both with an item per name.
    """
    names = verdicts.judges_of(comparison)
    figures = [comparison["judges"][judge] for judge in names]
    silent = verdicts.unexplained(comparison)
    explaining = [policy for policy in comparison["order"] if policy not in silent]
    compared = verdicts.others(explaining, subject) if subject in explaining else []
    blocks = []
    for metric in JUDGED if explaining else ():
        values = {
            policy: [part["policies"][policy][OVERALL].get(metric) or undefined() for part in figures]
            for policy in explaining
        }
        against = []
        for policy in compared:
            said = [
                (
                    verdicts.verdict(part, subject, policy, metric),
                    verdicts.difference(part, subject, policy, metric),
                )
                for part in figures
            ]
            against.append((policy, said))
        lower = metric in LOWER_IS_BETTER
        blocks.append({"metric": metric, "lower": lower, "values": values, "against": against})
    worth = {judge: verdicts.worth_in_words(judge, comparison["judges"][judge]["worth"]) for judge in names}
    number = len([name for name in names if name != MAJORITY])
    unnamed = {
        policy: [_unnamed(comparison["outcomes"][policy].get(judge)) for judge in names]
        for policy in explaining
    }
    alpha = {policy: comparison["agreement"][policy]["alpha"] for policy in explaining if number > 1}
    return {
        "names": names,
        "judges": number,
        "worth": worth,
        "unnamed": unnamed,
        "alpha": alpha,
        "blocks": blocks,
    }


def _unnamed(counts: Mapping[str, int] | None) -> dict[str, int] | None:
    return None if counts is None else {kind: n for kind, n in counts.items() if kind != "named"}


def further(comparison: Mapping[str, Any]) -> list[str]:
    """The shares that get no verdict, if the comparison has them; the page gives them beside the others."""
    figures = [comparison["policies"][policy][OVERALL] for policy in comparison["order"]]
    shares = (metric for metric in FURTHER if metric not in NEITHER_IS_BETTER)
    return [metric for metric in shares if any(metric in items for items in figures)]


def sets(comparison: Mapping[str, Any], subject: str) -> dict[str, dict[str, Any]]:
    """The metrics of `erv.evaluate.sets` in each data set whose labels stand for several emotions.

    Args:
        comparison: without such a data set nothing is returned.
        subject: the policy of the headline.

    Returns:
        Scope -> `metrics` in order, `values`: policy -> interval by metric, and `against`: other policy ->
        the subject's minus its, as interval and verdict by metric. What doesn't apply to a policy is absent.
    """
    order, figures = comparison["order"], comparison["policies"]
    found: dict[str, dict[str, Any]] = {}
    for scope in comparison["clips"]:
        values = {
            policy: {
                m: figures[policy][scope][m]
                for m in (*SET_METRICS, *EXPLANATION_SETS)
                if m in figures[policy][scope]
            }
            for policy in order
        }
        metrics = [
            m for m in (*SET_METRICS, *EXPLANATION_SETS) if any(m in items for items in values.values())
        ]
        if not metrics:
            continue
        against: dict[str, dict[str, Any]] = {}
        for other in verdicts.others(order, subject):
            gaps = {
                m: difference(comparison, subject, other, scope, m)
                for m in metrics
                if m in values[subject] and m in values[other]
            }
            against[other] = {m: (gap, in_words(m, gap)) for m, gap in gaps.items()}
        found[scope] = {"metrics": metrics, "values": values, "against": against}
    return found


def by_emotion(comparison: Mapping[str, Any], metrics: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The figures among the clips of each true emotion.

    Args:
        comparison: without `classes` nothing is returned.
        metrics: those to show.

    Returns:
        Scope -> emotion -> `clips` and `policies`: policy -> value by metric, without what doesn't apply.
    """
    order, classes = comparison["order"], comparison.get("classes")
    if not classes:
        return {}
    return {
        scope: {
            emotion: {
                "clips": row["clips"],
                "policies": {
                    policy: {m: value for m, value in classes[policy][scope][emotion].items() if m in metrics}
                    for policy in order
                },
            }
            for emotion, row in sorted(rows.items())
        }
        for scope, rows in classes[order[0]].items()
    }


def describe(item: DatasetEvidence, name: str) -> dict[str, Any]:
    """The charts of a data set, and its clips per label and split in the fold in use."""
    splits = [split for split in SPLITS if item.splits.get(split)]
    counts = {
        (row["label"], row["split"]): int(row["clips"])
        for row in item.balance
        if row["fold"] == str(item.fold)
    }
    return {
        "evidence": item,
        "balance": class_balance_svg(item.balance, name),
        "durations": durations_svg(item.durations, name),
        "quarantine": quarantine_table(item.quarantine),
        "splits": splits,
        "counts": {
            label: [counts.get((label, split), 0) for split in splits]
            for label in dict.fromkeys(row["label"] for row in item.balance)
        },
    }


def differences(
    comparison: Mapping[str, Any], names: Mapping[str, str], metrics: Sequence[str]
) -> list[dict[str, Any]]:
    """A title and a chart per pair of policies, the latest first."""
    policies = list(names)
    found = []
    for i, later in enumerate(policies):
        for earlier in policies[:i]:
            items = {m: verdicts.difference(comparison, later, earlier, m) for m in metrics}
            words = {m: verdicts.verdict(comparison, later, earlier, m) for m in metrics}
            title = f"{names[later]} minus {names[earlier]}"
            found.append({"title": title, "chart": charts.difference_chart(items, title, words)})
    return found[::-1]


def confusion(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The pooled confusion matrix, with each row as shares of its true emotion.

    The columns after the emotions are labels of a data set without a name in the MAFW space (only if such an
    answer was given), answers that are no label, and completions without an answer.
    """
    pooled = scope_rows(rows)[OVERALL]
    names = scope_space(OVERALL).names
    counts = recognition_metrics(
        [row["label"] for row in pooled], [row["predicted"] for row in pooled], scope_space(OVERALL)
    )["confusion"]
    malformed = Counter(row["label"] for row in pooled if unread_kind(row) == "malformed")
    apart = Counter(row["label"] for row in pooled if row["predicted"] and row["predicted"] not in names)
    lines = {
        name: [
            *line[:-1],
            *([apart[name]] if apart else []),
            line[-1] - apart[name] - malformed[name],
            malformed[name],
        ]
        for name, line in zip(names, counts, strict=True)
        if sum(line)
    }
    return {
        "columns": [*names, *(["label not pooled"] if apart else []), "not a label", "no answer"],
        "rows": [
            {"name": name, "total": sum(line), "cells": [(count, count / sum(line)) for count in line]}
            for name, line in lines.items()
        ],
    }
