"""Ingestion: turns a pinned source into a manifest, one row per clip of the chosen fold."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from erv.errors import DataError
from erv.ingest import checks as common
from erv.ingest import list_checks
from erv.ingest.checks import EXCHANGED
from erv.ingest.published import published_counts
from erv.ingest.readers.by_name import read, selection_of
from erv.ingest.readers.reading import Check, Entry, Excluded, Folds, Reading
from erv.labels import LabelSpace
from erv.manifest import SPLITS, ClipRow
from erv.sources import Lock, ObjectStore

if TYPE_CHECKING:
    from erv.settings import IngestSettings

_CUT = "; validation cut"


@dataclass(frozen=True)
class Ingested:
    """What ingestion found.

    Attributes:
        rows: of the manifest, by clip id.
        excluded: listed clips that can't be used, by clip id.
        unlisted: clips of the source that no list names, as paths.
        folds: usable clips of all folds by fold, split and label; fold 0 if the set has no folds.
        checks: all of them; the failed ones are warnings.
        absent: listed clips that are not in the source, as paths.
        dataset: its name.
        fold: of the rows.
        expect: full or subset.
    """

    rows: tuple[ClipRow, ...]
    excluded: tuple[Excluded, ...]
    unlisted: tuple[str, ...]
    folds: Folds
    checks: tuple[Check, ...]
    absent: tuple[str, ...]
    dataset: str
    fold: int
    expect: str

    def counts(self) -> dict[str, float]:
        """Counts of clips per split, of excluded, absent and unlisted clips, and of failed checks."""
        splits = Counter(row.split for row in self.rows)
        return {
            "clips": float(len(self.rows)),
            **{f"clips/{split}": float(splits[split]) for split in SPLITS},
            "excluded": float(len(self.excluded)),
            "absent": float(len(self.absent)),
            "unlisted": float(len(self.unlisted)),
            "checks/failed": float(sum(not check.success for check in self.checks)),
        }

    def warnings(self) -> list[str]:
        """A sentence per failed check, and a single one for all published counts that a subset explains.

        A subset always explains the number of clips in the source, and the other counts if the lists are
        shorter too. Folds that seem to be exchanged are reported in full.
        """
        failed = [check for check in self.checks if not check.success]
        whole = any(check.name == "published_clips" and check.success for check in self.checks)
        counts = [
            check
            for check in failed
            if check.name.startswith("published_")
            and (check.name == "published_total" or not whole)
            and EXCHANGED not in check.hint
        ]
        lines = [f"{check.name}: {check.sentence()}" for check in failed if check not in counts]
        if counts:
            names = ", ".join(check.name.removeprefix("published_") for check in counts)
            lines.append(f"a subset: the published counts of {names} differ (ingest.expect: {self.expect})")
        if self.excluded:
            lines += [f"{c.name}: {c.found}" for c in self.checks if c.name == "excluded" and c.success]
        return lines

    def checks_document(self) -> dict[str, Any]:
        """Everything but the rows, for JSON."""
        return {
            "dataset": self.dataset,
            "fold": self.fold,
            "expect": self.expect,
            "labels": list(LabelSpace.load(self.dataset).names),
            "counts": self.counts(),
            "checks": [{**asdict(check), "clips": list(check.clips)} for check in self.checks],
            "excluded": [asdict(item) for item in self.excluded],
            "absent": list(self.absent),
            "unlisted": list(self.unlisted),
            "folds": {
                str(fold): {split: dict(labels) for split, labels in splits.items()}
                for fold, splits in self.folds.items()
            },
        }


def ingest(
    dataset: str, lock: Lock, store: ObjectStore | None, settings: IngestSettings, *, seed: int
) -> Ingested:
    """Reads the official files of a source, checks them and cuts a validation split from train.

    Validation is cut per label, never from test: of each label the given share of its clips (rounded, half a
    clip up), those with the lowest hash of the clip id. So every label has its share, and a clip that is
    added moves at most one other, of its own label. A label keeps at least one clip for training. A table
    with its own validation clips stays as it is.

    Args:
        dataset: its name, and that of its label space.
        lock: the pinned source.
        store: for sources in an object store.
        settings: fold, share of validation, what is expected and how the data set is read.
        seed: of the hash.

    Raises:
        DataError: the source does not match its layout, or checks failed (one line each).
        StorageError: an object can't be read.
    """
    reader = settings.readers.get(dataset)
    if reader is None:
        raise DataError(
            f"data set {dataset!r} has no reader; add ingest.readers.{dataset} to params.yaml (there:"
            f" {', '.join(sorted(settings.readers)) or 'none'})"
        )
    if lock.selection is not None and lock.selection != selection_of(reader):
        raise DataError(
            f"{dataset}: the source was pinned with other settings than ingest.readers.{dataset} has now;"
            f" pin it again with `erv data pin {lock.name}`"
        )
    reading = read(dataset, lock, store, reader, settings.fold)
    published = published_counts(reader)
    checks = [
        *reading.checks,
        *list_checks.structural(reading.listing, published, settings.expect, reading.fold),
        *common.presence(reading, settings.expect, settings.max_excluded_share),
        common.unlisted(reading, published),
    ]
    if published is not None:
        checks += common.against_published(reading, published, settings.expect)
    _raise_failed(dataset, lock, checks)
    return Ingested(
        rows=_rows(dataset, lock, reading, settings.validation_share, seed),
        excluded=tuple(sorted(reading.excluded, key=lambda item: (item.clip_id, item.listed_in))),
        unlisted=reading.unlisted,
        folds=reading.folds,
        checks=tuple(checks),
        absent=reading.absent,
        dataset=dataset,
        fold=reading.fold,
        expect=settings.expect,
    )


def require_current(lock: Lock, source: str) -> None:
    """Refuses a lock made from another place than `params.yaml` names: its data would be outdated.

    Raises:
        DataError: they differ.
    """
    if lock.uri != source:
        raise DataError(
            f"{lock.name}: pinned from {lock.uri}, but sources.{lock.name} is {source}; pin that with"
            f" `erv data pin {lock.name}`, or set sources.{lock.name} back"
        )


def _raise_failed(dataset: str, lock: Lock, checks: list[Check]) -> None:
    failed = [check for check in checks if not check.success and check.severity == "error"]
    if not failed:
        return
    if len(failed) == 1:
        raise DataError(f"{dataset} ({lock.uri}): {failed[0].sentence()}")
    lines = "".join(f"\n- {check.name}: {check.sentence()}" for check in failed)
    raise DataError(f"{dataset} ({lock.uri}): {len(failed)} checks failed:{lines}")


def _rows(
    dataset: str, lock: Lock, reading: Reading, validation_share: float, seed: int
) -> tuple[ClipRow, ...]:
    if any(entry.split == "validation" for entry in reading.entries):
        validation_share = 0.0
    cut = _validation_cut(reading.entries, dataset, validation_share, seed)
    rows = []
    for entry in reading.entries:
        file = lock.find(entry.path)
        split = "validation" if entry.clip_id in cut else entry.split
        rows.append(
            ClipRow(
                clip_id=entry.clip_id,
                dataset=dataset,
                fold=reading.fold,
                split=split,
                label=entry.label,
                raw_label=entry.raw_label,
                caption=entry.caption,
                completion=entry.completion,
                media=entry.media,
                uri=lock.uri_of(entry.path),
                bytes=file.bytes,
                sha256=file.sha256,
                label_from=entry.label_from,
                split_from=entry.split_from + _CUT * (split != entry.split),
                caption_from=entry.caption_from,
                subtitle=entry.subtitle,
            )
        )
    return tuple(sorted(rows, key=lambda row: row.clip_id))


def _validation_cut(entries: Iterable[Entry], dataset: str, share: float, seed: int) -> set[str]:
    """Ids of the training clips that become validation clips: per label those with the lowest hash."""
    by_label: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        if entry.split == "train":
            by_label[entry.label].append(entry.clip_id)
    chosen: set[str] = set()
    for clips in by_label.values():
        # As a fraction of what params.yaml says: 0.35 of 10 clips is 3.5, which no float is exactly.
        count = int(Fraction(str(share)) * len(clips) + Fraction(1, 2))
        clips.sort(key=lambda clip: hashlib.sha256(f"{seed}:{dataset}:{clip}".encode()).digest())
        chosen.update(clips[: min(count, len(clips) - 1)])
    return chosen
