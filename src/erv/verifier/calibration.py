"""Calibration, thresholds and quality of a multi-label classifier, in plain numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

BINS = 15
_LOWEST, _HIGHEST = 0.05, 0.95


def fit_temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """The temperature that minimises the binary cross-entropy of `sigmoid(logits / temperature)`.

    Temperature scaling (Guo et al., 2017, "On Calibration of Modern Neural Networks"), searched on a
    logarithmic grid that is refined twice: no optimiser, no start value.

    Args:
        logits: float [n, labels].
        targets: 0/1 [n, labels].

    Returns:
        A temperature between 0.05 and 20.
    """
    low, high = np.log(0.05), np.log(20.0)
    best = 0.0
    for _ in range(3):
        grid = np.linspace(low, high, 61)
        losses = [_cross_entropy(logits / np.exp(value), targets) for value in grid]
        best = float(grid[int(np.argmin(losses))])
        width = grid[1] - grid[0]
        low, high = best - width, best + width
    return float(np.clip(np.exp(best), 0.05, 20.0))


def choose_thresholds(probabilities: np.ndarray, targets: np.ndarray) -> list[float]:
    """For each label the threshold with the best F1, the one nearest to 0.5 among equals.

    Thresholds lie in the middle between neighbouring probabilities, since the middle of a gap holds best on
    other sentences, and within [0.05, 0.95]. A label without a positive gets 0.5.

    Args:
        probabilities: float [n, labels].
        targets: 0/1 [n, labels].
    """
    thresholds = []
    for column in range(probabilities.shape[1]):
        values, truth = probabilities[:, column].astype(np.float64), targets[:, column] > 0.5
        if not truth.any():
            thresholds.append(0.5)
            continue
        edges = np.unique(np.concatenate([values, [0.0, 1.0]]))
        candidates = np.clip((edges[:-1] + edges[1:]) / 2, _LOWEST, _HIGHEST)
        candidates = np.unique(np.append(candidates, 0.5))
        scores = np.array([_f1(values > limit, truth) for limit in candidates])
        best = candidates[scores >= scores.max() - 1e-12]
        thresholds.append(float(best[np.argmin(np.abs(best - 0.5))]))
    return thresholds


def calibration_error(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Expected calibration error of all decisions: mean gap of probability and frequency in 15 bins."""
    values, truth = probabilities.ravel().astype(np.float64), targets.ravel()
    bins = np.minimum((values * BINS).astype(int), BINS - 1)
    gaps = [
        np.sum(bins == index) * abs(values[bins == index].mean() - truth[bins == index].mean())
        for index in range(BINS)
        if np.any(bins == index)
    ]
    return float(np.sum(gaps) / len(values))


def classification_report(
    probabilities: np.ndarray, targets: np.ndarray, thresholds: np.ndarray, labels: Sequence[str]
) -> dict[str, Any]:
    """F1 and calibration of a classifier on n sentences.

    Args:
        probabilities: float32 [n, labels].
        targets: 0/1 [n, labels].
        thresholds: float32 [labels].
        labels: a name per column.

    Returns:
        macro_f1 (over labels that occur), without_support (labels that don't, so that macro_f1 says nothing
        of them), micro_f1, exact_match, calibration_error, n, and per_label with precision, recall, f1 and
        support.
    """
    chosen, truth = probabilities > thresholds, targets > 0.5
    per_label = {}
    for index, label in enumerate(labels):
        hits = int(np.sum(chosen[:, index] & truth[:, index]))
        named, support = int(chosen[:, index].sum()), int(truth[:, index].sum())
        per_label[label] = {
            "precision": round(hits / named, 6) if named else 0.0,
            "recall": round(hits / support, 6) if support else 0.0,
            "f1": round(_f1(chosen[:, index], truth[:, index]), 6),
            "support": support,
        }
    occurring = [row["f1"] for row in per_label.values() if row["support"]]
    return {
        "macro_f1": round(float(np.mean(occurring)), 6) if occurring else 0.0,
        "without_support": [label for label, row in per_label.items() if not row["support"]],
        "micro_f1": round(_f1(chosen.ravel(), truth.ravel()), 6),
        "exact_match": round(float(np.mean((chosen == truth).all(axis=1))), 6),
        "calibration_error": round(calibration_error(probabilities, targets), 6),
        "n": len(targets),
        "per_label": per_label,
    }


def _cross_entropy(logits: np.ndarray, targets: np.ndarray) -> float:
    # log(1 + exp(x)) - x t, written so that it can't overflow.
    return float(np.mean(np.logaddexp(0.0, logits) - logits * targets))


def _f1(chosen: np.ndarray, truth: np.ndarray) -> float:
    hits = float(np.sum(chosen & truth))
    total = float(chosen.sum() + truth.sum())
    return 2 * hits / total if total else 0.0
