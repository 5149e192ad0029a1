"""What the figures of a policy were measured on and by, in whichever run of this workspace that was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from erv.evaluate.measured import measured_tags


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
