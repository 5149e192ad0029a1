"""Three small tables about a data set: class balance per fold, durations, and quarantine by reason.

They are CSV files under `data/plots/NAME/`. `dvc plots` draws them (templates in `.dvc/plots/`), and so do
the MLflow run of the stage that writes each table and the report. Equal inputs give equal bytes.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from erv.errors import DataError
from erv.files import write_text
from erv.manifest import SPLITS, ClipRow

CLASS_BALANCE, DURATIONS, QUARANTINE = "class_balance.csv", "durations.csv", "quarantine.csv"
BIN_SECONDS = 0.5  # .dvc/plots/durations.json uses the same bar width
_COLUMNS = {
    CLASS_BALANCE: ("fold", "split", "label", "clips"),
    DURATIONS: ("seconds", "clips"),
    QUARANTINE: ("stage", "reason", "clips"),
}


class Timed(Protocol):
    """The part of `erv.validate.probes.Probe` that is needed here."""

    @property
    def decodable(self) -> bool:
        """Whether the clip decodes."""

    @property
    def seconds(self) -> float | None:
        """The clip's length, if it has one."""


def write_class_balance(
    folds: Mapping[int, Mapping[str, Mapping[str, int]]],
    chosen_fold: int,
    rows: Sequence[ClipRow],
    labels: Sequence[str],
    path: Path,
) -> None:
    """Writes `fold,split,label,clips`, sorted by fold, split and label, labels in the order of their space.

    Args:
        folds: fold -> split -> label -> clips in the official lists; fold 0 for a set without folds.
        chosen_fold: the fold in use. It is counted from the manifest, with its validation split.
        rows: rows of the manifest, one fold of one data set.
        labels: names of its label space, in order.
        path: the file to write.
    """
    names = list(labels) if rows else []
    used = rows[0].fold if rows else chosen_fold
    mine = Counter((row.split, row.label) for row in rows)
    counts: dict[int, Mapping[str, Mapping[str, int]]] = dict(folds)
    counts[used] = {
        split: {name: mine[split, name] for name in names}
        for split in SPLITS
        if any(mine[split, name] for name in names)
    }
    records = [
        (fold, split, name, counts[fold][split].get(name, 0))
        for fold in sorted(counts)
        for split in SPLITS
        if split in counts[fold]
        for name in names
    ]
    _write(records, path, CLASS_BALANCE)


def write_durations(probes: Iterable[Timed], longest: float, path: Path) -> None:
    """Writes `seconds,clips`: a histogram with bins of `BIN_SECONDS`, each named by its lower end.

    Frame folders and clips that can't be decoded have no length and are not counted.

    Args:
        probes: probes of the clips.
        longest: `validate.max_seconds`; longer clips are counted in the bin that begins there.
        path: the file to write.
    """
    last = int(longest / BIN_SECONDS)
    bins = Counter(
        min(int(probe.seconds / BIN_SECONDS), last)
        for probe in probes
        if probe.decodable and probe.seconds is not None
    )
    first, end = (min(bins), max(bins)) if bins else (0, -1)
    _write([(f"{i * BIN_SECONDS:.1f}", bins[i]) for i in range(first, end + 1)], path, DURATIONS)


def write_quarantine(reasons: Iterable[tuple[str, str]], path: Path) -> None:
    """Writes `stage,reason,clips`, most frequent reasons first.

    Args:
        reasons: stage and reason of each clip in quarantine.
        path: the file to write.
    """
    counts = sorted(Counter(reasons).items(), key=lambda item: (-item[1], item[0]))
    _write([(stage, reason, clips) for (stage, reason), clips in counts], path, QUARANTINE)


def read_plot(path: Path) -> list[dict[str, str]]:
    """The rows of a plot's table.

    Raises:
        DataError: the file is missing or has other columns.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            rows = list(reader)
    except FileNotFoundError:
        raise DataError(f"{path}: not found; `dvc repro` writes it") from None
    expected = _COLUMNS[path.name]
    if tuple(reader.fieldnames or ()) != expected:
        raise DataError(f"{path}: expected the columns {','.join(expected)}; run `dvc repro` again")
    return rows


def _write(records: Iterable[Sequence[object]], path: Path, kind: str) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS[kind])
    writer.writerows(records)
    write_text(text.getvalue(), path)
