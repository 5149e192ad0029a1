"""Asks a version about many clips; a killed run goes on where it stopped, and ends with the same bytes.

Clips are answered in pieces of a fixed size, in the order of their names. A finished piece is kept in
`.erv/predictions`, under the hash of all that decides it: the version with its code, the libraries, and the
names and contents of its clips with what their data set says of them. A piece with a clip that could not be
read this time, or for which this machine had too little time or memory, is not kept.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from erv.answering.clips import MAX_CLIPS
from erv.checkpoints import LIBRARIES
from erv.determinism import code_version
from erv.errors import DataError, EvaluationError
from erv.files import remove, sha256_of_text, whole_file
from erv.manifest import write_table
from erv.policies.common.policy import stored_prompt
from erv.predict.answering import Answering
from erv.predict.listing import AGAIN, ListedClip, Listing, Unread, shown
from erv.progress import meter
from erv.register.fetched import FetchedVersion

logger = logging.getLogger(__name__)

# What `erv.media.workers` says of clips where another machine, or this one later, may answer. The version has
# its own code, so that its words are all there is to go by. Signal 9 is that of a kernel without memory.
_FOR_NOW = re.compile(r"not done within .+ s|needs more than \d+ MB|decoder process died \(signal 9\)")
_MODEL = "erv.model"  # in the metadata of every file that is written here

SCHEMA = pa.schema(
    [
        pa.field("clip", pa.string(), nullable=False),
        pa.field("sha256", pa.string()),
        pa.field("answer", pa.string()),
        pa.field("explanation", pa.string()),
        pa.field("agreement", pa.float64()),
        pa.field("completion", pa.string()),
        pa.field("error", pa.string()),
    ]
)


@dataclass(frozen=True)
class Predicted:
    """What was written: the number of clips, of those without an answer, and of those kept from before."""

    clips: int
    failed: int
    kept: int


def predict(version: FetchedVersion, listing: Listing, output: Path, kept: Path) -> Predicted:
    """Writes a row per clip, in the order of their names.

    The columns are those of `SCHEMA`, see `erv.answering.predictor.Predictor.predict`; its metadata names
    model, version, bundle and the SHA-256 of the version's `lineage.json`. Equal clips and equal versions
    give equal bytes.

    Args:
        version: what answers.
        listing: the clips.
        output: the parquet file; it appears once it is complete.
        kept: folder of finished pieces, of this output alone.

    Raises:
        EvaluationError: the version failed, would be asked another question than when it was evaluated, or
            another process writes the same output.
        StorageError: the object store can't be reached or refuses the key.
    """
    _require_question(version)
    pieces = [
        range(len(listing.clips))[start : start + MAX_CLIPS]
        for start in range(0, len(listing.clips), MAX_CLIPS)
    ]
    names = [_piece_name(version, [listing.clips[number] for number in piece]) for piece in pieces]
    tables: list[pa.Table] = []
    again = 0
    with (
        _alone(kept, output),
        meter(f"{version.title} answers", len(listing.clips), "clips", logger) as bar,
        Answering(version, kept / "log") as answering,
    ):
        for piece, name in zip(pieces, names, strict=True):
            path = kept / name
            table = _read(path, [listing.clips[number].name for number in piece])
            if table is None or not _lasts(table):
                table, settled = _answered(answering, listing, piece)
                if settled and _lasts(table):
                    write_table(table, path)
            else:
                again += len(piece)
            tables.append(table)
            bar.update(len(piece))
        whole = pa.concat_tables(tables)
        with whole_file(output) as temporary:
            pq.write_table(whole.replace_schema_metadata(_metadata(version)), temporary, compression="zstd")
        for path in kept.iterdir():
            if path.name not in names:
                remove(path)
    failed = whole.num_rows - whole.column("error").null_count
    return Predicted(whole.num_rows, failed, again)


def _require_question(version: FetchedVersion) -> None:
    """Refuses a version whose code leaves out the lines of its question that belong to one clip."""
    fields = [f"{{{name}}}" for name in sorted(stored_prompt(version.bundle / "policy").fields)]
    if not fields:
        return
    from mlflow.models import Model

    if "subtitle" not in Model.load(str(version.folder)).get_input_schema().input_names():
        raise EvaluationError(
            f"{version.title}: its question has {' and '.join(fields)}, which the erv that published it"
            " leaves out; run `dvc repro register` and `erv publish`, and ask the new version"
        )


def require_own_file(output: Path) -> None:
    """Refuses to write over a file that no `predict` wrote.

    Raises:
        DataError: there is such a file.
    """
    if not output.exists():
        return
    try:
        written = pq.read_schema(output).metadata or {}
    except (pa.ArrowException, OSError):
        written = {}
    if _MODEL.encode() not in written:
        raise DataError(
            f"{shown(output)}: is there already, and `erv predict` did not write it; name another file, or"
            " move this one away"
        )


@contextmanager
def _alone(kept: Path, output: Path) -> Iterator[None]:
    """Keeps the folder of finished pieces for one process; the kernel frees it when that is killed."""
    from filelock import FileLock, Timeout

    kept.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(kept.with_name(f"{kept.name}.lock"), timeout=0):
            yield
    except Timeout:
        raise EvaluationError(
            f"{shown(output)}: another `erv predict` is writing it; wait for it, or name another file"
        ) from None


def _answered(answering: Answering, listing: Listing, piece: Sequence[int]) -> tuple[pa.Table, bool]:
    """The rows of a piece, and whether each clip could be read, so that another run says the same."""
    asked = [number for number in piece if listing.clips[number].fault is None]
    found = dict(zip(asked, listing.files(asked), strict=True)) if asked else {}
    unread = {number: item for number, item in found.items() if isinstance(item, Unread)}
    paths = {number: item for number, item in found.items() if isinstance(item, Path)}
    before = {number: _state(path) for number, path in paths.items()}
    rows = answering.ask(list(paths.values()), [listing.clips[number] for number in paths]) if paths else []
    said = dict(zip(paths, rows, strict=True))
    for number, path in paths.items():
        if before[number] is None or _state(path) != before[number]:
            unread[number] = Unread(f"was changed while it was asked about; {AGAIN}")
    said |= {number: {"error": item.reason} for number, item in unread.items()}
    table = pa.Table.from_pylist(
        [_row(listing.clips[number], said.get(number)) for number in piece], schema=SCHEMA
    )
    return table, not unread


def _lasts(table: pa.Table) -> bool:
    """Whether no answer rests on what the machine could do at the time."""
    errors = table.column("error").drop_null().to_pylist()
    return not any(map(_FOR_NOW.fullmatch, errors))


def _state(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is replaced or written to; None if there is none."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_size, facts.st_mtime_ns


def _row(clip: ListedClip, answer: dict[str, Any] | None) -> dict[str, Any]:
    said = {"error": clip.fault} if answer is None else answer
    return {
        **{name: said.get(name) for name in SCHEMA.names},
        "clip": clip.name,
        "sha256": clip.sha256,
    }


def _piece_name(version: FetchedVersion, clips: Sequence[ListedClip]) -> str:
    decides = [version.record, code_version((), LIBRARIES), [astuple(clip) for clip in clips]]
    return f"{sha256_of_text(json.dumps(decides))}.parquet"


def _read(path: Path, names: Sequence[str]) -> pa.Table | None:
    """A finished piece, which has these clips; None if there is none, or it is damaged."""
    if not path.is_file():
        return None
    try:
        table = pq.read_table(path).cast(SCHEMA)
        if table.column("clip").to_pylist() == list(names):
            return table
    except (pa.ArrowException, OSError, ValueError):
        pass
    logger.warning("%s is damaged: its clips are answered again", path)
    return None


def _metadata(version: FetchedVersion) -> dict[str, str]:
    return {
        _MODEL: version.name,
        "erv.version": version.number,
        "erv.bundle": version.bundle_hash,
        "erv.lineage_sha256": version.record,
    }
