"""What the report's page says of the data: class balance, durations, quarantine, and what was found amiss."""

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
    """An expectation that was not met: its name, severity, what was expected and how many clips miss it."""

    name: str
    severity: str
    expected: str
    clips: int


@dataclass(frozen=True)
class DatasetEvidence:
    """A data set, as its stages left it.

    Attributes:
        fold: the one in use; 0 where the set has none.
        splits: clips of that fold by split.
        balance: rows of `class_balance.csv`.
        durations: rows of `durations.csv`.
        quarantine: rows of `quarantine.csv`.
        warnings: a sentence per check that ingest found missed.
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
        """Clips in quarantine."""
        return sum(int(row["clips"]) for row in self.quarantine)


def read_datasets(
    names: Iterable[str], plots: Path, manifests: Path, verdicts: Path
) -> dict[str, DatasetEvidence]:
    """The evidence of the data sets of a run, by name.

    Args:
        names: of the data sets.
        plots: folder of a folder per data set, as `erv.plots.tables` writes them.
        manifests: folder of `NAME.checks.json`.
        verdicts: folder of `NAME.json`.

    Raises:
        DataError: a file is missing or not what its stage writes.
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
            warnings=_warnings(read_document(manifests / f"{name}.checks.json", "ingest")),
            missed=[
                Missed(key, item["severity"], item["expected"], item["failed"])
                for key, item in verdict["expectations"].items()
                if not item["success"] or (item["severity"] == "tolerated" and item["failed"])
            ],
        )
    return found


def _warnings(checks: Mapping[str, Any]) -> list[str]:
    """A sentence per missed check; the published counts, which a subset misses by its nature, in one."""
    failed = [check for check in checks["checks"] if not check["success"]]
    counts = [check["name"].removeprefix("published_") for check in failed if _is_published(check)]
    told = [
        f"{check['name']}: {check['found']}; expected {check['expected']}"
        for check in failed
        if not _is_published(check)
    ]
    if counts:
        told.append(f"the published counts of {', '.join(counts)} differ: this is not the whole set")
    return told


def _is_published(check: Mapping[str, Any]) -> bool:
    return str(check["name"]).startswith("published_")
