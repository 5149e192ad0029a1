"""The quality of a multi-label classifier of sentences, on sentences that nothing was fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

BINS = 15
CURVE_POINTS = 40


def classification_report(
    probabilities: np.ndarray, targets: np.ndarray, thresholds: np.ndarray, labels: Sequence[str]
) -> dict[str, Any]:
    """F1, precision against recall, calibration and confusion on n sentences.

    Args:
        probabilities: float32 [n, labels].
        targets: 0/1 [n, labels].
        thresholds: float32 [labels].
        labels: a name per column.

    Returns:
        macro_f1 (over labels that occur), without_support (labels that don't, about which macro_f1 says
        nothing), micro_f1, exact_match, calibration_error (of all decisions, most of which are easy noes),
        named_calibration_error (only of the labels that are named, which is what a reward sees),
        reliability (see `reliability`), n, per_label with precision, recall, f1, support, average_precision,
        calibration_error and curve (recall and precision from high thresholds to low; None without support),
        and confusion (see `confusion`).
    """
    from sklearn.metrics import average_precision_score, f1_score, precision_recall_fscore_support

    chosen, truth = probabilities > thresholds, targets > 0.5
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, chosen, average=None, zero_division=0.0
    )
    per_label = {}
    for index, label in enumerate(labels):
        occurs = bool(support[index])
        scores = truth[:, index], probabilities[:, index]
        per_label[label] = {
            "precision": _round(precision[index]),
            "recall": _round(recall[index]),
            "f1": _round(f1[index]),
            "support": int(support[index]),
            "average_precision": _round(average_precision_score(*scores)) if occurs else None,
            "calibration_error": _round(calibration_error(probabilities[:, index], targets[:, index])),
            "curve": _precision_recall(*scores) if occurs else None,
        }
    return {
        "macro_f1": _round(np.mean(f1[support > 0])) if support.any() else 0.0,
        "without_support": [label for label, row in per_label.items() if not row["support"]],
        "micro_f1": _round(f1_score(truth, chosen, average="micro", zero_division=0.0)),
        "exact_match": _round(np.mean((chosen == truth).all(axis=1))),
        "calibration_error": _round(calibration_error(probabilities, targets)),
        "named_calibration_error": _round(calibration_error(probabilities[chosen], targets[chosen])),
        "reliability": reliability(probabilities, targets),
        "n": len(targets),
        "per_label": per_label,
        "confusion": confusion(probabilities, truth),
    }


def calibration_error(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Expected calibration error of these decisions: mean gap of probability and frequency in 15 bins."""
    bins = reliability(probabilities, targets)
    gaps = (row["decisions"] * abs(row["probability"] - row["frequency"]) for row in bins)
    return float(sum(gaps) / probabilities.size) if probabilities.size else 0.0


def reliability(probabilities: np.ndarray, targets: np.ndarray) -> list[dict[str, float]]:
    """The decisions (sentence and label) in non-empty bins of equal width by probability.

    Returns:
        Per bin, the mean probability, the frequency of true decisions and the number of decisions.
    """
    values, truth = probabilities.ravel().astype(np.float64), targets.ravel()
    bins = np.minimum((values * BINS).astype(int), BINS - 1)
    return [
        {
            "probability": _round(values[bins == index].mean()),
            "frequency": _round(truth[bins == index].mean()),
            "decisions": int(np.sum(bins == index)),
        }
        for index in range(BINS)
        if np.any(bins == index)
    ]


def confusion(probabilities: np.ndarray, truth: np.ndarray) -> list[list[int]]:
    """Sentences by true label (rows) and most probable label (columns); a sentence counts for all its labels.

    Args:
        probabilities: float [n, labels].
        truth: bool [n, labels].
    """
    count = probabilities.shape[1]
    table = np.zeros((count, count), dtype=int)
    for best, row in zip(probabilities.argmax(axis=1), truth, strict=True):
        table[row.nonzero()[0], best] += 1
    return table.tolist()


def _precision_recall(truth: np.ndarray, values: np.ndarray) -> dict[str, list[float]]:
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(truth, values)
    precision, recall = precision[::-1], recall[::-1]
    picks = np.unique(np.linspace(0, len(recall) - 1, CURVE_POINTS).round().astype(int))
    return {
        "recall": [_round(value) for value in recall[picks]],
        "precision": [_round(value) for value in precision[picks]],
    }


def _round(value: Any) -> float:
    return round(float(value), 6)
