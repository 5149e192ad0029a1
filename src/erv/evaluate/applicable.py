"""Figures about explanations of a policy that gives none.

A policy that answers without thinking (`thinks: false`) has no explanation to read. Its EEA, EPC, FCR and the
like are not 0, they don't apply: `metrics.json` says `"explains": false` and has null for them,
`comparison.json` leaves them out, and tables show a dash.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ABOUT_ANSWERS = ("WAR", "UAR", "precision")  # all other metrics need an explanation
COUNTS = ("clips", "malformed", "outside")


def is_about_explanations(metric: str) -> bool:
    """Whether a figure of `metrics.json` or `comparison.json`, by name, says something of explanations."""
    # `set_...` compares answers with compound labels, see `erv.evaluate.sets`.
    return not metric.startswith("set_") and metric.removesuffix("_released") not in (*ABOUT_ANSWERS, *COUNTS)


def without_explanations(measured: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Metrics by scope, with None for what doesn't apply to a policy that doesn't explain."""
    return {
        scope: {name: None if is_about_explanations(name) else value for name, value in values.items()}
        for scope, values in measured.items()
    }
