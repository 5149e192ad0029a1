"""The same predictions in the reading of each judge, from the column `verdicts`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from erv.errors import EvaluationError
from erv.evaluate.judges.panel import MAJORITY

# Lower end of the 95% interval of a judge's recall, a mean over emotions, on hand-labelled explanations.
LEAST_RECALL = 0.6


def shared_panel(predictions: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """The judges that read every policy, in the order of the panel.

    Args:
        predictions: rows of the predictions table by policy.

    Raises:
        EvaluationError: a policy's rows have no verdicts, or not all rows were read by the same judges.
    """
    panel: list[str] | None = None
    for policy, rows in predictions.items():
        for row in rows:
            if row.get("verdicts") is None:
                raise EvaluationError(
                    f"policy {policy!r}: its predictions have no verdicts of judges (clip"
                    f" {row['clip_id']!r} of {row['dataset']}); run `dvc repro evaluate` again"
                )
            found = [verdict["judge"] for verdict in row["verdicts"]]
            if panel is None:
                panel = found
            if found != panel:
                raise EvaluationError(
                    f"policy {policy!r}: clip {row['clip_id']!r} of {row['dataset']} was read by"
                    f" {', '.join(found) or 'no judge'}, expected {', '.join(panel) or 'no judge'};"
                    " run `dvc repro evaluate` again"
                )
    return panel or []


def readings_of(panel: Sequence[str]) -> list[str]:
    """The judges of a panel, and `majority` if more than one judge votes."""
    return [*panel, MAJORITY] if len(panel) > 1 else list(panel)


def worth_of_judges(evaluations: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """The worth of each judge, as `metrics.json` of the evaluated policies records it.

    Args:
        evaluations: content of `metrics.json` by policy; all were read by the same panel.

    Returns:
        Worth by judge; None if the evaluations know no panel.
    """
    first: Mapping[str, Any] = next(iter(evaluations.values()), {})
    if "judges" not in first:
        return None
    return {name: judge.get("worth") for name, judge in first["judges"].items()}


def is_worthy(worth: Any) -> bool:
    """Whether a judge has shown its worth: on hand-labelled explanations it is right often enough.

    Args:
        worth: what `metrics.json` says of it. A judge of which nothing is recorded has shown none.
    """
    low = worth.get("recall_low") if isinstance(worth, Mapping) else None
    return low is not None and low >= LEAST_RECALL


def worthy_judges(comparison: Mapping[str, Any]) -> list[str]:
    """The judges of a comparison that have shown their worth; never `majority`, which is no judge.

    Raises:
        EvaluationError: the comparison has no figures by judge.
    """
    if "judges" not in comparison:
        raise EvaluationError("the comparison has no figures by judge; run `dvc repro evaluate report` again")
    return [name for name, judge in comparison["judges"].items() if is_worthy(judge["worth"])]
