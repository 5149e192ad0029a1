"""What a flow run reports at its end: in the terminal, in Prefect's artifacts and in the logs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.graph import StageReport

COMPARISON = Path("report/comparison.json")
REPORT = Path("report/report.html")
KEPT_REPORT = Path("report/report.html")  # among the artifacts of the flow's MLflow run


@dataclass(frozen=True)
class Summary:
    """The end of a flow run.

    Attributes:
        reports: one per stage.
        metrics: the table of metrics, or nothing when the run ended before the report.
        registered: sentences on the registered version, its alias and its gates.
        addresses: where to look, by name.
        lineage: lineage of the registered version, a line per node.
        since: what changed against earlier runs.
        gates_passed, lineage_holds: of the version that was registered; False without one.
    """

    reports: Sequence[StageReport]
    metrics: str = ""
    registered: Sequence[str] = ()
    addresses: dict[str, str] = field(default_factory=dict)
    lineage: Sequence[str] = ()
    since: Sequence[str] = ()
    gates_passed: bool = False
    lineage_holds: bool = False

    def text(self) -> str:
        """The whole summary, as the terminal shows it."""
        parts = [stage_table(self.reports)]
        if self.metrics:
            parts.append(self.metrics.rstrip())
        if self.registered:
            parts.append("\n".join(self.registered))
        if self.since:
            parts.append("\n".join(self.since))
        if self.lineage:
            parts.append(
                "\n".join(["lineage (`erv lineage` shows more):", *(f"  {line}" for line in self.lineage)])
            )
        if self.addresses:
            width = max(len(name) for name in self.addresses)
            parts.append("\n".join(f"{name:<{width}}  {where}" for name, where in self.addresses.items()))
        return "\n\n".join(parts)


def stage_table(reports: Sequence[StageReport]) -> str:
    """One line per stage: what happened, how long it took, and which failed stages one was not run for."""
    width = max((len(report.name) for report in reports), default=0)
    lines = [f"{report.name:<{width}}  {report.outcome:<9}  {_took(report)}".rstrip() for report in reports]
    counts = {o: sum(r.outcome == o for r in reports) for o in dict.fromkeys(r.outcome for r in reports)}
    total = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    return "\n".join([*lines, f"{_stages(len(reports))}: {total}"])


def how_many(count: int, workers: int) -> str:
    """How many stages a run goes through, and how many of them at a time."""
    return _stages(count) if min(count, workers) < 2 else f"{_stages(count)}, up to {workers} side by side"


def _stages(count: int) -> str:
    return "1 stage" if count == 1 else f"{count} stages"


def _took(report: StageReport) -> str:
    return report.message if report.outcome == "not run" else f"{duration(report.seconds):>8}"


def duration(seconds: float | None) -> str:
    """`4.2 s`, `3 min 05 s`, or nothing for a stage that was not started."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def read_comparison(path: Path = COMPARISON) -> dict[str, Any]:
    """`report/comparison.json`; empty when there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def metric_rows(comparison: dict[str, Any]) -> list[dict[str, str]]:
    """A row per scope and policy with the metrics and their intervals, for Prefect's table artifact."""
    from erv.evaluate.compare import metrics_table

    scopes = comparison.get("clips", {})
    return [{"scope": scope, **row} for scope in scopes for row in metrics_table(comparison, scope)]


def flat_metrics(comparison: dict[str, Any]) -> dict[str, float]:
    """`erv/overall/EPC` and the like, for the parent run in MLflow."""
    return {
        f"{policy}/{scope}/{metric}": float(entry["value"])
        for policy, scopes in comparison.get("policies", {}).items()
        for scope, metrics in scopes.items()
        for metric, entry in metrics.items()
        if isinstance(entry, dict) and entry.get("value") is not None
    }


def metrics_text(comparison: dict[str, Any]) -> str:
    """The table of metrics for the terminal: all clips together, in percent with intervals."""
    if not comparison:
        return ""
    from erv.evaluate.compare import format_table, metrics_table, table_notes

    percent = round(100 * float(comparison["confidence"]))
    lines = [format_table(metrics_table(comparison)), f"in percent, with {percent}% intervals"]
    return "\n".join([*lines, *table_notes(comparison)])
