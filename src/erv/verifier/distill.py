"""Sentence labels for the verifier: each sentence of a reasoning explanation, with what a teacher says of it.

The teacher `reference` reads `sentence_labels.csv` (columns name, index, sentence, labels), which lies beside
the explanations of the reasoning source.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from erv.data.manifest import ClipRow, write_table
from erv.errors import DataError
from erv.labels import LabelSpace
from erv.prompts import parse_completion
from erv.settings import DistillSettings
from erv.verifier.sentences import normalize, split_sentences

REFERENCE_FILE = "sentence_labels.csv"

SCHEMA = pa.schema(
    [
        pa.field("sentence", pa.string(), nullable=False),
        pa.field("labels", pa.list_(pa.string()), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("teacher", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("clip_id", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class LabelledSentence:
    """A sentence of an explanation and its labels in the MAFW space."""

    sentence: str
    labels: tuple[str, ...]


def distill_reference(
    rows: Iterable[ClipRow], reference: str, settings: DistillSettings, seed: int
) -> pa.Table:
    """Labels every sentence of every explanation with the reference labels.

    Args:
        rows: the reasoning manifest.
        reference: text of `sentence_labels.csv`.
        settings: shares of different sentence texts held out for validation and for test.
        seed: of the split.

    Returns:
        A table with `SCHEMA`, by clip and position. A split takes sentence texts, wherever they occur (by a
        hash of the text without case, punctuation and white space): explanations share phrases, so whole
        held-out explanations would consist of sentences that were trained on.

    Raises:
        DataError: an explanation and its labels are not the same sentences, or a label is unknown; names the
            clip.
    """
    labelled = _read_reference(reference)
    records: list[dict[str, object]] = []
    for row in sorted(rows, key=lambda row: row.clip_id):
        explanation = parse_completion(row.completion or "").explanation
        sentences = split_sentences(explanation or "")
        known = labelled.pop(row.clip_id, [])
        if not sentences:
            raise DataError(
                f"clip {row.clip_id!r}: has no explanation to label; run ingest for reasoning again"
            )
        if [item.sentence for item in known] != sentences:
            raise DataError(
                f"clip {row.clip_id!r}: {REFERENCE_FILE} does not match its explanation"
                f" ({_difference(sentences, [item.sentence for item in known])}); label its sentences anew"
            )
        records.extend(
            {
                "sentence": item.sentence,
                "labels": list(item.labels),
                "source": row.dataset,
                "teacher": settings.teacher,
                "split": _split(item.sentence, settings, seed),
                "clip_id": row.clip_id,
            }
            for item in known
        )
    if labelled:
        raise DataError(
            f"clip {min(labelled)!r}: {REFERENCE_FILE} labels it, but the manifest does not list it;"
            " run ingest for reasoning again"
        )
    return pa.Table.from_pylist(records, schema=SCHEMA)


def write_sentences(table: pa.Table, path: Path) -> None:
    """Writes the sentences; raises DataError when a split is empty, since the verifier needs all three."""
    for split in ("train", "validation", "test"):
        if split not in table.column("split").to_pylist():
            raise DataError(
                f"{path}: no sentence fell into the {split} split; give more different sentences, or"
                " raise distill.validation_share and distill.test_share"
            )
    write_table(table, path)


def read_sentences(path: Path) -> list[str]:
    """The sentences of the table, of all splits; raises DataError when the file is missing."""
    if not path.is_file():
        raise DataError(f"{path}: sentences not found; run `dvc repro distill` first")
    return [str(value) for value in pq.read_table(path, columns=["sentence"]).column("sentence").to_pylist()]


def _read_reference(text: str) -> dict[str, list[LabelledSentence]]:
    """Labelled sentences by clip, in the order of their index."""
    space = LabelSpace.load("mafw")
    found: dict[str, list[tuple[int, LabelledSentence]]] = defaultdict(list)
    reader = csv.DictReader(io.StringIO(text.lstrip("\ufeff")))
    missing = {"name", "index", "sentence", "labels"} - set(reader.fieldnames or ())
    if missing:
        raise DataError(f"{REFERENCE_FILE}: lacks the columns {', '.join(sorted(missing))}")
    for record in reader:
        names = [space.normalize(label) for label in record["labels"].split(";") if label.strip()]
        if not names or None in names:
            raise DataError(
                f"clip {record['name']!r}: {REFERENCE_FILE} labels sentence {record['index']} with"
                f" {record['labels']!r}, expected names of the MAFW space with ';' between"
            )
        if not record["index"].isdigit():
            raise DataError(
                f"clip {record['name']!r}: {REFERENCE_FILE} has index {record['index']!r}, expected a number"
            )
        sentence = LabelledSentence(record["sentence"], tuple(str(name) for name in names))
        found[record["name"]].append((int(record["index"]), sentence))
    return {name: [item for _, item in sorted(rows, key=lambda row: row[0])] for name, rows in found.items()}


def _split(sentence: str, settings: DistillSettings, seed: int) -> str:
    digest = hashlib.sha256(f"{seed}/distill/{normalize(sentence)}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < settings.test_share:
        return "test"
    return "validation" if position < settings.test_share + settings.validation_share else "train"


def _difference(sentences: list[str], labelled: list[str]) -> str:
    if len(sentences) != len(labelled):
        return f"{len(sentences)} sentences, {len(labelled)} labelled"
    index = next(i for i, (a, b) in enumerate(zip(sentences, labelled, strict=True)) if a != b)
    return f"sentence {index}: {sentences[index]!r} against {labelled[index]!r}"
