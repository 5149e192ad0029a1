"""The comparison behind the report, as JSON; `erv.report.page` renders it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from erv.errors import EvaluationError
from erv.evaluate.by_judge import worth_of_judges
from erv.evaluate.compare import check_measured_alike, compare
from erv.evaluate.evaluate import OVERALL, read_predictions, scope_rows, scope_space, unread_answers
from erv.evaluate.judges.agreement import agreement
from erv.evaluate.judges.panel import outcomes
from erv.evaluate.metrics import shuffled_eea
from erv.files import read_document
from erv.prompts import parse_completion
from erv.report.evidence import Evidence
from erv.sentences import explanation_shape
from erv.settings import ReportSettings

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


def build_comparison(
    predictions: Mapping[str, Sequence[Mapping[str, Any]]],
    evidence: Evidence,
    settings: ReportSettings,
    *,
    seed: int,
) -> dict[str, Any]:
    """The content of `comparison.json`.

    It holds the result of `erv.evaluate.compare.compare`, the quality of the verifier and of the judge, the
    decoding settings, the numbers of completions without an answer that counts (`malformed`: no answer block;
    `outside`: an answer that is not a label), and the shape of explanations (`explanations`: sentences,
    words, repeated, distinct and shuffled_EEA by policy).
    `outcomes` has the verdicts of each judge by policy and outcome, and `agreement` how far judges agree.

    Raises:
        EvaluationError: a policy has no metrics, or the policies differ in clips, judge or decoding.
    """
    for policy in predictions:
        if policy not in evidence.evaluations:
            raise EvaluationError(f"policy {policy!r} has predictions but no metrics; evaluate it again")
    evaluations = {policy: evidence.evaluations[policy] for policy in predictions}
    if evaluations:
        check_measured_alike(evaluations, of_one_state=True)
    result = compare(
        predictions,
        samples=settings.bootstrap_samples,
        confidence=settings.confidence,
        seed=seed,
        worth=worth_of_judges(evaluations),
        unexplained=[policy for policy, item in evaluations.items() if not item.get("explains", True)],
    )
    unread = {policy: unread_answers(rows) for policy, rows in predictions.items()}
    for kind in ("malformed", "outside"):
        result[kind] = {policy: counts[kind] for policy, counts in unread.items()}
    pooled = {policy: scope_rows(rows)[OVERALL] for policy, rows in predictions.items()}
    result["outcomes"] = {policy: outcomes(rows) for policy, rows in pooled.items()}
    result["agreement"] = {policy: agreement(rows, scope_space(OVERALL)) for policy, rows in pooled.items()}
    result["explanations"] = {policy: _explanations(rows, seed) for policy, rows in predictions.items()}
    result["verifier"] = {key: evidence.verifier[key] for key in VERIFIER_FIGURES}
    first = next(iter(evaluations.values()))
    if first.get("categories"):
        result["categories"] = first["categories"]
    result["judge"], result["decoding"] = dict(first["judge"]), dict(first["decoding"])
    return result


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
    said = [parse_completion(row["completion"]).explanation for row in pooled]
    values["distinct"] = len({text for text in said if text}) / max(1, len(said))
    values["shuffled_EEA"] = shuffled_eea(*columns, seed=seed)
    return {name: round(value, 6) for name, value in values.items()}
