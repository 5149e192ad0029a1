"""What the figures of a policy were measured on and by: those of two runs compare only if it is the same."""

from __future__ import annotations

import json
from pathlib import Path

from erv.evaluate.compare import measuring, panel_of
from erv.evaluate.evaluate import read_predictions
from erv.files import sha256_of_text
from erv.tracking.since import MEASURED_BY, MEASURED_ON


def measured_tags(predictions: Path, metrics: Path) -> dict[str, str]:
    """Digests of the test clips (labels and content), and of judges, decoding and code, as tags of a run.

    Args:
        predictions: a policy's `predictions.parquet`.
        metrics: its `metrics.json`.

    Raises:
        EvaluationError: the predictions can't be read.
    """
    rows = read_predictions(predictions)
    clips = sorted((row["dataset"], row["clip_id"], row["label"], row["sha256"]) for row in rows)
    known = json.loads(metrics.read_text(encoding="utf-8"))
    figures = known.get("code", {}).get("figures")
    by = {**(measuring(known) or {}), "panel": panel_of(known), "figures": figures}
    return {
        MEASURED_ON: sha256_of_text(json.dumps(clips)),
        MEASURED_BY: sha256_of_text(json.dumps(by, sort_keys=True)),
    }
