"""What the figures of a policy were measured on and by: those of two runs compare only if it is the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from erv.evaluate.compare import measuring, panel_of
from erv.evaluate.evaluate import read_predictions
from erv.files import sha256_of_text
from erv.tracking.since import MEASURED_BY, MEASURED_ON


def measured_of(entries: Mapping[str, Mapping[str, Any]], policy: str, workspace: Path) -> dict[str, str]:
    """`measured_tags` of a policy, from what its evaluation wrote last, in whichever run that was.

    Args:
        entries: of `dvc.lock`, by stage.
        policy: its name.
        workspace: that the lock is of.

    Returns:
        Nothing if it was never evaluated here, or what that wrote is gone.

    Raises:
        EvaluationError: the predictions can't be read.
    """
    outs = entries.get(f"evaluate@{policy}", {}).get("outs") or []
    written = {Path(out["path"]).name: workspace / out["path"] for out in outs}
    predictions, metrics = written.get("predictions.parquet"), written.get("metrics.json")
    if predictions is None or metrics is None or not (predictions.is_file() and metrics.is_file()):
        return {}
    return measured_tags(predictions, metrics)


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
