"""Which clips are in the tables that versions were made from. Every file is read once, whoever shares it."""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from erv.errors import DataError, ErvError, RegistryError
from erv.lineage.excluded import left_out
from erv.lineage.objects import Objects
from erv.lineage.roles import MODELS, Answers, Base, Listed, Members, Sentences
from erv.training_sets import hash_of_rows, training_rows

if TYPE_CHECKING:
    import pyarrow as pa

Clip = tuple[str, str]  # data set, clip id

TRAINED_ON = "trained_on.csv"  # at the top of the source `base`
_COLUMNS = ("model", "dataset", "clip_id")
_LIKE_ANOTHER = "the same as a clip of another split"  # where no record tells which
_ROLLOUTS = "rollouts"  # the source of sampled explanations in the sentences


class NotRecordedError(RegistryError):
    """Nobody wrote down which clips those are, so no record is lost."""


@dataclass(frozen=True)
class Clips:
    """The clips of a use.

    Attributes:
        used: those that the stage had.
        left_out: those of its split that it did not have, with the reason.
    """

    used: frozenset[Clip]
    left_out: Mapping[Clip, str] = field(default_factory=dict)


class Contents:
    """Reads tables of lock entries.

    Args:
        objects: where they are.
        source: returns the lock file of a source by its MD5 and path, or None if nobody kept it; raises
            StorageError if it can't be read.
    """

    def __init__(self, objects: Objects, source: Callable[[str, str], bytes | None]) -> None:
        self._objects = objects
        self._source = source
        self._clips: dict[Members, Clips | ErvError] = {}  # a failure too is asked for once
        self._manifests: dict[str, dict[str, frozenset[str]]] = {}

    def clips(self, members: Members) -> Clips:
        """The clips that a use is about.

        Raises:
            NotRecordedError: the lock of a base checkpoint names no list of clips, or wasn't kept.
            RegistryError: a table is missing, damaged, or not the one that the stage read.
            StorageError: the object store can't be read, or a base checkpoint's list has changed in it.
            DataError: a base checkpoint's list of clips is missing, has changed, or is malformed.
        """
        if members not in self._clips:
            try:
                self._clips[members] = self._read(members)
            except ErvError as error:
                self._clips[members] = error
        found = self._clips[members]
        if isinstance(found, ErvError):
            raise found
        return found

    def known(self, manifest: str, dataset: str, quarantine: str | None) -> set[Clip]:
        """All clips of a manifest, and those that ingest left out of it."""
        found = {(dataset, clip) for clips in self._splits(manifest).values() for clip in clips}
        rows = self._rows(quarantine, ("clip_id",)) if quarantine else []
        return found | {(dataset, row["clip_id"]) for row in rows}

    def _read(self, members: Members) -> Clips:
        if isinstance(members, Listed):
            return self._listed(members)
        if isinstance(members, Sentences):
            columns = ("source", "clip_id", "split")
            return Clips(
                frozenset(
                    (members.rollouts if row["source"] == _ROLLOUTS else row["source"], row["clip_id"])
                    for row in self._rows(members.table, columns)
                    if row["clip_id"] and row["split"] == members.split
                )
            )
        if isinstance(members, Answers):
            rows = self._rows(members.table, ("dataset", "clip_id"))
            return Clips(frozenset((row["dataset"], row["clip_id"]) for row in rows))
        return self._base(members)

    def _listed(self, listed: Listed) -> Clips:
        if listed.training_sets is not None:
            self._check(listed)
        out = self._excluded(listed)
        if listed.quarantine is not None:
            for row in self._rows(listed.quarantine, ("clip_id", "reason")):
                out[row["clip_id"]] = f"in quarantine: {row['reason']}"
        clips = self._splits(listed.manifest).get(listed.split, frozenset())
        return Clips(
            frozenset((listed.dataset, clip) for clip in clips if clip not in out),
            {(listed.dataset, clip): out[clip] for clip in sorted(clips & out.keys())},
        )

    def _excluded(self, listed: Listed) -> dict[str, str]:
        if listed.exclusions is None:
            return {}
        items = [
            item for item in self._json(listed.exclusions)["excluded"] if item["dataset"] == listed.dataset
        ]
        # A list of before gives the reasons itself.
        recorded = listed.leakage is not None and any("because" not in item for item in items)
        reasons = left_out(self._json(str(listed.leakage))) if recorded else {}
        found = {}
        for item in items:
            clip = item["clip_id"]
            because = item.get("because") or reasons.get((listed.dataset, clip), _LIKE_ANOTHER)
            found[clip] = f"excluded: {because}"
        return found

    def _check(self, listed: Listed) -> None:
        """Makes sure that the manifest is the one that the training stage checked its own against."""
        assert listed.training_sets is not None
        hashes = self._json(listed.training_sets)["training_sets"].get(listed.dataset) or {}
        if "manifest" in hashes:  # of a version from before the training clips alone were hashed
            known, found = hashes["manifest"], hashlib.sha256(self._objects.read(listed.manifest)).hexdigest()
        else:
            known, found = hashes.get("rows"), hash_of_rows(training_rows(self._table(listed.manifest)))
        if known != found:
            raise RegistryError(
                f"the manifest of {listed.dataset} in its dvc.lock (md5 {listed.manifest}) is not the one"
                f" that was trained on (sha256 {known}), so what it learned from isn't known"
            )

    def _base(self, base: Base) -> Clips:
        from pathlib import Path
        from tempfile import TemporaryDirectory

        from erv.sources import Lock, store_for

        content = self._source(base.lock, base.path)
        if content is None:
            raise NotRecordedError(
                f"{base.path} (md5 {base.lock}): no copy of this hash was kept with a publication"
            )
        with TemporaryDirectory() as folder:
            path = Path(folder) / Path(base.path).name
            path.write_bytes(content)
            lock = Lock.load(path)
            if TRAINED_ON not in lock:
                raise NotRecordedError(
                    f"{lock.uri} has no {TRAINED_ON}, so what its {base.model} learned from isn't known"
                )
            found = lock.fetch(store_for([lock.uri]), TRAINED_ON, Path(folder) / "cache").read_bytes()
        rows = _trained_on(found, lock.uri_of(TRAINED_ON))
        return Clips(
            frozenset((row["dataset"], row["clip_id"]) for row in rows if row["model"] == base.model)
        )

    def _splits(self, manifest: str) -> dict[str, frozenset[str]]:
        if manifest not in self._manifests:
            found: dict[str, set[str]] = {}
            for row in self._rows(manifest, ("clip_id", "split")):
                found.setdefault(row["split"], set()).add(row["clip_id"])
            self._manifests[manifest] = {split: frozenset(clips) for split, clips in found.items()}
        return self._manifests[manifest]

    def _rows(self, md5: str, columns: tuple[str, ...]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self._table(md5, columns).to_pylist()
        return rows

    def _table(self, md5: str, columns: tuple[str, ...] | None = None) -> pa.Table:
        """A table, or these columns of it, which it must have."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        wanted = None if columns is None else list(columns)
        try:
            table: pa.Table = pq.read_table(pa.BufferReader(self._objects.read(md5)), columns=wanted)
            return table if wanted is None else table.select(wanted)
        except (pa.ArrowException, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise RegistryError(f"md5 {md5}: not the table that a stage wrote ({reason})") from None

    def _json(self, md5: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._objects.read(md5))
        return found


def _trained_on(content: bytes, what: str) -> list[dict[str, str]]:
    """The rows of a base checkpoint's list of clips; raises DataError if it is malformed."""
    again = "correct it and pin the base again"
    remedy = f"expected UTF-8 and the columns {', '.join(_COLUMNS)}; {again}"
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise DataError(f"{what}: lacks the columns {', '.join(missing)}; {remedy}")
        rows = []
        for row in reader:
            if None in (row[name] for name in _COLUMNS):
                raise DataError(f"{what}: line {reader.line_num} lacks values; {remedy}")
            if fault := _fault(row):
                raise DataError(f"{what}: line {reader.line_num}: {fault}; {again}")
            rows.append(row)
        return rows
    except UnicodeDecodeError as error:
        raise DataError(f"{what}: not UTF-8 text (byte {error.start}); {remedy}") from None
    except csv.Error as error:
        raise DataError(f"{what}: not a table ({error}); {remedy}") from None


def _fault(row: Mapping[Any, Any]) -> str:
    """What is mistyped in a row, whose clip would else be found for no model; empty if nothing is."""
    if None in row:
        return f"more values than columns (from {row[None][0]!r} on); quote a value that has a comma"
    if row["model"] not in MODELS:
        return f"model {row['model']!r}, expected {' or '.join(MODELS)}"
    if form := _no_data_set(row["dataset"]):
        return f"dataset {row['dataset']!r}, {form}"
    clip = row["clip_id"]
    if not clip or clip != clip.strip() or not clip.isprintable():
        return f"clip_id {clip!r}, expected an id without spaces around it"
    return ""


@functools.lru_cache(maxsize=64)  # a list has thousands of rows and a few data sets
def _no_data_set(name: str) -> str:
    """Why data sets can't have this name; empty if they can."""
    from pydantic import TypeAdapter, ValidationError

    from erv.settings.ingest import DatasetName

    try:
        TypeAdapter(DatasetName).validate_python(name)
    except ValidationError as error:
        return str(error.errors()[0]["ctx"]["error"])
    return ""
