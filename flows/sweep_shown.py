"""What a sweep says of its trials: a table on Prefect's page, and the summary."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from prefect.artifacts import create_table_artifact

from erv.sweep.command import command
from erv.sweep.plan import Plan, key_of
from erv.sweep.study import Row, table


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended.

    Attributes:
        plan: what it was begun with.
        rows: its trials.
        best: the best of them.
        proposed: what became of the best in the registry, in sentences; empty if it was not proposed.
    """

    plan: Plan
    rows: Sequence[Row]
    best: Row
    proposed: tuple[str, ...] = ()

    def with_proposal(self, lines: Sequence[str]) -> Outcome:
        """The same with what became of the best in the registry."""
        return dataclasses.replace(self, proposed=tuple(lines))

    def brief(self) -> str:
        """One sentence."""
        counts = Counter(row.state for row in self.rows)
        said = ", ".join(
            f"{counts[state]} {state}" for state in ("done", "pruned", "failed") if counts[state]
        )
        return f"{said}; best is trial {self.best.number}, {self.plan.metric} {self.best.value:.4g}"

    def text(self) -> str:
        """For the terminal."""
        return "\n".join(
            [
                f"sweep {self.plan.name}: {self.brief()} ({self.plan.direction}d, on validation clips of"
                f" {self.plan.stage})",
                *(f"  {line}" for line in self.proposed),
                f"to have it here: {command(self.plan, self.best)}",
            ]
        )

    def markdown(self) -> str:
        """For MLflow."""
        return f"{self.brief()}\n\n    {command(self.plan, self.best)}\n"


def show(rows: Sequence[Row], plan: Plan) -> None:
    """Puts the table of trials on Prefect's page."""
    create_table_artifact(
        key=key_of(plan.name),
        table=table(rows, plan.metric),
        description=f"Trials of sweep {plan.name}: {plan.metric} of {plan.stage} on validation clips",
    )
