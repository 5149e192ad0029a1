"""The command that brings what a trial made into the clone."""

from __future__ import annotations

import shlex

from erv.sweep.plan import Plan
from erv.sweep.study import Row


def command(plan: Plan, row: Row) -> str:
    """What brings a trial's parameters and results into the clone; nothing of it is trained again."""
    sets = " ".join(f"--set {shlex.quote(override)}" for override in (*plan.overrides, *row.overrides))
    return f"erv run {plan.stage} {sets}"
