"""The quality of a verifier in one line, and the least that GRPO may be given as a reward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from erv.errors import TrainingError

LOWEST = 3
LEAST_SENTENCES = 5  # held-out sentences with which a label counts as measured


def quality(metrics: Mapping[str, Any]) -> str:
    """`macro F1 0.979 on 424 held-out sentences; lowest: disgust 0.94, ...`.

    Args:
        metrics: the content of a verifier's `metrics.json`.
    """
    measured = {label: row["f1"] for label, row in metrics["per_label"].items() if row["support"]}
    lowest = sorted(measured, key=lambda label: (measured[label], label))[:LOWEST]
    line = f"macro F1 {metrics['macro_f1']:.3f} on {metrics['n']} held-out sentences"
    line += f"; lowest: {', '.join(f'{label} {measured[label]:.2f}' for label in lowest)}" if lowest else ""
    if metrics["without_support"]:
        line += f"; not measured: {', '.join(metrics['without_support'])}"
    return line


def require_quality(metrics: Mapping[str, Any], minimum: float, labels: float) -> None:
    """Refuses a verifier that is too poor, or measured on too few of its labels.

    Args:
        metrics: the content of a verifier's `metrics.json`.
        minimum: the least macro F1, over the labels that held-out sentences have.
        labels: the least share of its labels that `LEAST_SENTENCES` of them have. Without it, macro F1 is 1
            for a verifier that was only asked about one emotion.

    Raises:
        TrainingError: below either.
    """
    found = metrics["macro_f1"]
    if found < minimum:
        raise TrainingError(
            f"the verifier's macro F1 is {found:.3f} on {metrics['n']} held-out sentences, below"
            f" train_erv.minimum_f1 ({minimum}), so GRPO would be rewarded for noise; give it more labelled"
            " sentences or more train_erv.max_steps, or lower train_erv.minimum_f1 if you want it anyway"
        )
    support = {label: row["support"] for label, row in metrics["per_label"].items()}
    lacking = [label for label, count in support.items() if count < LEAST_SENTENCES]
    measured = len(support) - len(lacking)
    if measured < labels * len(support):
        raise TrainingError(
            f"the verifier was measured on {measured} of its {len(support)} labels (with {LEAST_SENTENCES}"
            f" held-out sentences or more each); not on {', '.join(lacking)}. It must be at least"
            f" {100 * labels:g}% of them (train_erv.minimum_labels), or its macro F1 says little about the"
            " reward; give it labelled sentences of these emotions or a larger distill.test_share, or lower"
            " train_erv.minimum_labels if you want it anyway"
        )
