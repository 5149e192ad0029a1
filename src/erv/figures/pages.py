"""The figures of a data set in the MLflow run of the stage that made them: pages that need nothing else."""

from __future__ import annotations

from pathlib import Path

from erv.figures.charts import class_balance_svg, durations_svg, page, quarantine_table
from erv.figures.tables import read_plot


def class_balance_page(path: Path) -> str:
    """HTML of `data/plots/NAME/class_balance.csv`."""
    return page(f"{path.parent.name}: clips per label", class_balance_svg(read_plot(path)))


def durations_page(path: Path) -> str:
    """HTML of `data/plots/NAME/durations.csv`."""
    return page(f"{path.parent.name}: clips per duration", durations_svg(read_plot(path)))


def quarantine_page(path: Path) -> str:
    """HTML of `data/plots/NAME/quarantine.csv`."""
    return page(f"{path.parent.name}: quarantine by reason", quarantine_table(read_plot(path)))
