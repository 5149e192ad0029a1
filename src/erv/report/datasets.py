"""What the report says about the data: class balance, durations, quarantine, and problems that were found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erv.files import read_document
from erv.plots.tables import CLASS_BALANCE, DURATIONS, QUARANTINE, read_plot

Rows = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Missed:
    """An expectation that was not met: name, severity, what was expected, how many clips don't meet it."""

    name: str
    severity: str
    expected: str
    clips: int


@dataclass(frozen=True)
class DatasetEvidence:
    """What the stages found out about a data set.

    Attributes:
        fold: the fold in use; 0 if the set has no folds.
        splits: number of clips of that fold by split.
        balance: rows of `class_balance.csv`.
        durations: rows of `durations.csv`.
        quarantine: rows of `quarantine.csv`.
        warnings: one sentence per failed check of ingest.
        missed: the expectations that were not met.
    """

    fold: int
    splits: Mapping[str, int]
    balance: Rows
    durations: Rows
    quarantine: Rows
    warnings: Sequence[str] = ()
    missed: Sequence[Missed] = ()

    @property
    def quarantined(self) -> int:
        """Number of clips in quarantine."""
        return sum(int(row["clips"]) for row in self.quarantine)


def read_datasets(
    names: Iterable[str], plots: Path, checks: Path, verdicts: Path
) -> dict[str, DatasetEvidence]:
    """The evidence about the data sets of a run, by name.

    Args:
        names: names of the data sets.
        plots: folder with one folder per data set, as written by `erv.plots.tables`.
        checks: folder with the checks of ingest, `NAME.json`.
        verdicts: folder with `NAME.json`.

    Raises:
        DataError: a file is missing or is not what its stage writes.
    """
    found = {}
    for name in names:
        verdict = read_document(verdicts / f"{name}.json", "validate")
        found[name] = DatasetEvidence(
            fold=verdict["fold"],
            splits=verdict["splits"],
            balance=read_plot(plots / name / CLASS_BALANCE),
            durations=read_plot(plots / name / DURATIONS),
            quarantine=read_plot(plots / name / QUARANTINE),
            warnings=_warnings(read_document(checks / f"{name}.json", "ingest")),
            missed=[
                Missed(key, item["severity"], item["expected"], item["failed"])
                for key, item in verdict["expectations"].items()
                if not item["success"] or (item["severity"] == "tolerated" and item["failed"])
            ],
        )
    return found


def _warnings(checks: Mapping[str, Any]) -> list[str]:
    """One sentence per failed check; one for all published counts together, which any subset fails."""
    failed = [check for check in checks["checks"] if not check["success"]]
    counts = [check["name"].removeprefix("published_") for check in failed if _is_published(check)]
    found = [
        f"{check['name']}: {check['found']}; expected {check['expected']}"
        for check in failed
        if not _is_published(check)
    ]
    if counts:
        found.append(f"the published counts of {', '.join(counts)} differ: this is not the complete set")
    return found


def _is_published(check: Mapping[str, Any]) -> bool:
    return str(check["name"]).startswith("published_")
