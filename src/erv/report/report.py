"""The report: one self-contained HTML page, and the comparison behind it as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from erv.errors import EvaluationError
from erv.evaluate.categories import notes
from erv.evaluate.compare import check_measured_alike, compare, table_notes
from erv.evaluate.evaluate import (
    OVERALL,
    read_predictions,
    scope_rows,
    scope_space,
    unread_answers,
    unread_kind,
)
from erv.evaluate.metrics import (
    MEANINGS,
    METRICS,
    recognition_metrics,
    shuffled_eea,
)
from erv.figures.charts import class_balance_svg, durations_svg
from erv.figures.drawing import stylesheet
from erv.figures.pages import quarantine_table
from erv.files import read_document
from erv.manifest import SPLITS
from erv.report import charts
from erv.report.datasets import DatasetEvidence
from erv.report.examples import (
    FindCues,
    choose_examples,
    cue_precision,
    describe_example,
    label_explanations,
)
from erv.sentences import explanation_shape
from erv.settings import ReportSettings
from erv.shards import Clip
from erv.verifier.protocol import Verifier

TITLES = {
    "sft": "Cold start",
    "r1_omni": "R1-Omni (format + accuracy)",
    "erv": "ERV (+ explanation reward)",
    "rft": "RFT (rejection sampling)",
}
DATASETS = {
    "mafw": "MAFW",
    "mafw_compound": "MAFW compound",
    "dfew": "DFEW",
    "ravdess": "RAVDESS",
    "reasoning": "Reasoning",
    OVERALL: "All clips",
}

# The figures on the verifier's quality that go into `comparison.json`; the verifier's folder has all of them.
VERIFIER_FIGURES = (
    "macro_f1",
    "micro_f1",
    "exact_match",
    "calibration_error",
    "named_calibration_error",
    "calibration",
    "n",
    "behaviour",
)


@dataclass(frozen=True)
class Evidence:
    """What the page shows besides the predictions.

    Attributes:
        evaluations: `metrics.json` of each policy.
        verifier: content of the verifier's `metrics.json`.
        sentences: content of `data/sentences.json`: what the verifier was trained on.
        data: what is known about each data set.
        leakage: content of `data/leakage.json`: clips found in two splits; None if they were not compared.
        cues: (data set, clip id) -> row of `cues.parquet`; empty if the sources have none.
        planted: share of cold-start explanations that contradict their answer by design; None unless the data
            is the sample corpus.
    """

    evaluations: Mapping[str, Mapping[str, Any]]
    verifier: Mapping[str, Any]
    sentences: Mapping[str, Any]
    data: Mapping[str, DatasetEvidence]
    leakage: Mapping[str, Any] | None = None
    cues: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    planted: float | None = None


def build_comparison(
    predictions: Mapping[str, Sequence[Mapping[str, Any]]],
    evidence: Evidence,
    settings: ReportSettings,
    *,
    seed: int,
    find_cues: FindCues | None = None,
) -> dict[str, Any]:
    """The content of `comparison.json`.

    It holds the result of `erv.evaluate.compare.compare`, the quality of the verifier and of the judge, the
    decoding settings, the numbers of completions without an answer that counts (`malformed`: no answer block;
    `outside`: an answer that is not a label) and of explanations that the judge can't read, the shape of
    explanations (`explanations`: sentences, words, repeated and shuffled_EEA by policy) and, if cues are
    known, their precision.

    Raises:
        EvaluationError: a policy has no metrics, or the policies differ in clips, judge or decoding.
    """
    for policy in predictions:
        if policy not in evidence.evaluations:
            raise EvaluationError(f"policy {policy!r} has predictions but no metrics; evaluate it again")
    evaluations = {policy: evidence.evaluations[policy] for policy in predictions}
    if evaluations:
        check_measured_alike(evaluations)
    result = compare(
        predictions, samples=settings.bootstrap_samples, confidence=settings.confidence, seed=seed
    )
    unread = {policy: unread_answers(rows) for policy, rows in predictions.items()}
    for kind in ("malformed", "outside"):
        result[kind] = {policy: counts[kind] for policy, counts in unread.items()}
    result["unreadable"] = {
        policy: evaluation.get("unreadable", {}).get(OVERALL, 0) for policy, evaluation in evaluations.items()
    }
    result["explanations"] = {policy: _explanations(rows, seed) for policy, rows in predictions.items()}
    result["verifier"] = {key: evidence.verifier[key] for key in VERIFIER_FIGURES}
    first = next(iter(evaluations.values()))
    if first.get("categories"):
        result["categories"] = first["categories"]
    result["judge"], result["decoding"] = dict(first["judge"]), dict(first["decoding"])
    if evidence.cues and find_cues is not None:
        result["cues"] = {
            policy: {
                name: round(value, 6) for name, value in cue_precision(rows, evidence.cues, find_cues).items()
            }
            for policy, rows in predictions.items()
        }
    return result


def render_report(
    predictions: Mapping[str, Sequence[Mapping[str, Any]]],
    comparison: Mapping[str, Any],
    evidence: Evidence,
    settings: ReportSettings,
    *,
    seed: int,
    verifier: Verifier,
    clip_of: Callable[[str, str], Clip],
    find_cues: FindCues | None = None,
) -> str:
    """Renders the page; equal inputs give equal bytes.

    Args:
        predictions: rows by policy, in the order of the comparison.
        comparison: the result of `build_comparison`.
        evidence: see `Evidence`.
        settings: the section `report`.
        seed: seed for the choice of examples.
        verifier: reads the emotion of each sentence, which gives its colour.
        clip_of: returns the clip for a data set and a clip id.
        find_cues: finds the cues that a text mentions.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    policies = list(predictions)
    names = {policy: TITLES.get(policy, policy) for policy in policies}
    by_key = {
        policy: {(row["dataset"], row["clip_id"]): row for row in rows}
        for policy, rows in predictions.items()
    }
    chosen = [
        (row["dataset"], row["clip_id"])
        for row in choose_examples(predictions[policies[-1]], settings.examples, seed)
    ]
    labels = label_explanations(
        (by_key[policy][key]["completion"] for policy in policies for key in chosen), verifier
    )
    examples = [
        describe_example(
            {policy: by_key[policy][key] for policy in policies},
            clip_of(*key),
            labels,
            evidence.cues.get(key),
            find_cues,
        )
        for key in chosen
    ]
    environment = Environment(
        loader=PackageLoader("erv.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda value, digits=1: f"{100 * value:.{digits}f}"
    return environment.get_template("report.html.j2").render(
        names=names,
        datasets=DATASETS | _marked(comparison),
        metrics=METRICS,
        meanings=MEANINGS,
        comparison=comparison,
        notes={
            scope: [*notes(comparison.get("categories", {}), scope), *table_notes(comparison, scope)]
            for scope in comparison["clips"]
        },
        evidence=evidence,
        bars=charts.bar_chart({p: comparison["policies"][p][OVERALL] for p in policies}, METRICS, names),
        differences=_differences(comparison, names),
        precision_recall=charts.precision_recall_chart(evidence.verifier["per_label"]),
        reliability=charts.reliability_chart(evidence.verifier["reliability"]),
        confusions={policy: _confusion(rows) for policy, rows in predictions.items()},
        examples=examples,
        data={name: _describe(item, DATASETS.get(name, name)) for name, item in evidence.data.items()},
        palette=stylesheet(),
        hues=charts.HUES,
    )


def _marked(comparison: Mapping[str, Any]) -> dict[str, str]:
    """The titles of data sets that no policy was trained on."""
    marked = [name for name, item in comparison.get("categories", {}).items() if item["zero_shot"]]
    return {name: f"{DATASETS.get(name, name)} (unseen, zero-shot)" for name in marked}


def load_evaluations(
    folder: Path, policies: Sequence[str]
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, dict[str, Any]]]:
    """Predictions and metrics of the policies, each from its folder in `folder`, in the given order.

    Raises:
        EvaluationError: a policy has no folder there, or its folder lacks a file.
    """
    predictions, metrics = {}, {}
    for policy in policies:
        if not (folder / policy).is_dir():
            raise EvaluationError(
                f"{folder / policy}: no evaluation of policy {policy!r}; run `dvc repro evaluate` first"
            )
        predictions[policy] = read_predictions(folder / policy / "predictions.parquet")
        path = folder / policy / "metrics.json"
        if not path.is_file():
            raise EvaluationError(f"{path}: metrics not found; run `dvc repro evaluate` first")
        metrics[policy] = read_document(path, "evaluate")
    return predictions, metrics


def _explanations(rows: Sequence[Mapping[str, Any]], seed: int) -> dict[str, float]:
    pooled = sorted(scope_rows(rows)[OVERALL], key=lambda row: (row["dataset"], row["clip_id"]))
    columns = ([row[name] for row in pooled] for name in ("label", "judged", "dataset"))
    values = explanation_shape([row["completion"] for row in pooled])
    values["shuffled_EEA"] = shuffled_eea(*columns, seed=seed)
    return {name: round(value, 6) for name, value in values.items()}


def _describe(item: DatasetEvidence, name: str) -> dict[str, Any]:
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


def _differences(comparison: Mapping[str, Any], names: Mapping[str, str]) -> list[dict[str, Any]]:
    policies = list(names)
    found = []
    for i, later in enumerate(policies):
        for earlier in policies[:i]:
            values = comparison["differences"][f"{later}-{earlier}"][OVERALL]
            title = f"{names[later]} minus {names[earlier]}"
            ordered = {metric: values[metric] for metric in METRICS}
            found.append({"title": title, "chart": charts.difference_chart(ordered, title)})
    return found[::-1]


def _confusion(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The pooled confusion matrix, with each row as shares of its true emotion.

    The last two columns are answers that are no label, and completions without an answer.
    """
    pooled = scope_rows(rows)[OVERALL]
    names = scope_space(OVERALL).names
    counts = recognition_metrics(
        [row["label"] for row in pooled], [row["predicted"] for row in pooled], scope_space(OVERALL)
    )["confusion"]
    malformed = Counter(row["label"] for row in pooled if unread_kind(row) == "malformed")
    lines = {
        name: [*line[:-1], line[-1] - malformed[name], malformed[name]]
        for name, line in zip(names, counts, strict=True)
        if sum(line)
    }
    return {
        "columns": [*names, "not a label", "no answer"],
        "rows": [
            {"name": name, "total": sum(line), "cells": [(count, count / sum(line)) for count in line]}
            for name, line in lines.items()
        ],
    }
