"""The quality of a verifier in one line, and the least that GRPO may be given as a reward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from erv.errors import TrainingError

LOWEST = 3


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


def require_quality(metrics: Mapping[str, Any], minimum: float) -> None:
    """Raises TrainingError for a verifier whose macro F1 on held-out sentences is below `minimum`."""
    found = metrics["macro_f1"]
    if found < minimum:
        raise TrainingError(
            f"the verifier's macro F1 is {found:.3f} on {metrics['n']} held-out sentences, below"
            f" train_erv.minimum_f1 ({minimum}), so GRPO would be rewarded for noise; give it more labelled"
            " sentences or more train_erv.max_steps, or lower train_erv.minimum_f1 if you want it anyway"
        )
