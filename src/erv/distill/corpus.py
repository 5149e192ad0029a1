"""The sentences that a verifier learns from, before teachers label them.

They come from three places: the explanations of the reasoning set, sentences without a clip that its source
may include (`sentences.csv`), and explanations that the stage `rollouts` samples. Without a reasoning set,
the last two remain. The first two may have
labels: those of explanations in `sentence_labels.csv`, those of other sentences in `sentences.csv` itself.
"""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from erv.errors import DataError
from erv.files import read_parquet
from erv.labels import LabelSpace
from erv.manifest import ClipRow
from erv.prompts import parse_completion
from erv.sentences import split_sentences

if TYPE_CHECKING:
    from erv.sources import Lock, ObjectStore

REFERENCE_FILE = "sentence_labels.csv"
SENTENCES_FILE = "sentences.csv"
ROLLOUTS = "rollouts"
_MORE = "\0more"  # no column has this name: files with a NUL byte are refused


@dataclass(frozen=True)
class Sentence:
    """A sentence and where it comes from.

    Attributes:
        text: the sentence.
        source: name of the data set of its explanation, `sentences` or `rollouts`.
        clip_id: of its explanation; empty for a sentence without a clip.
        labels: those that came with it, names of the MAFW space; None if there were none.
    """

    text: str
    source: str
    clip_id: str
    labels: tuple[str, ...] | None = None


def read_corpus(
    lock: Lock, store: ObjectStore | None, rows: Iterable[ClipRow], *, labelled: bool
) -> list[Sentence]:
    """The sentences of a source: of its explanations, then those without a clip.

    A data set that is no reasoning set has no explanations; of its source, only `sentences.csv` is read.

    Args:
        lock: the pinned source.
        store: for sources in an object store.
        rows: its manifest.
        labelled: whether to read the labels that came with the source.

    Raises:
        DataError: labels are wanted but the source has none, or a file is malformed.
    """
    has = {file.path for file in lock.files}
    rows = list(rows)
    if not any(row.completion for row in rows):
        rows = []
    if labelled and rows and REFERENCE_FILE not in has:
        raise DataError(
            f"source {lock.name} ({lock.uri}) has no {REFERENCE_FILE}, which the teacher reference reads; add"
            " it, or let the teachers openai or local read the sentences (distill.teachers)"
        )
    reference = _text(lock, store, REFERENCE_FILE) if labelled and rows else None
    loose = _text(lock, store, SENTENCES_FILE) if SENTENCES_FILE in has else None
    sentences = explanation_sentences(rows, reference)
    return sentences + (loose_sentences(loose, labelled=labelled) if loose is not None else [])


def explanation_sentences(rows: Iterable[ClipRow], reference: str | None) -> list[Sentence]:
    """The sentences of the reasoning set's explanations, by clip and position.

    Args:
        rows: the reasoning manifest.
        reference: text of `sentence_labels.csv`; None leaves the sentences without labels.

    Raises:
        DataError: a clip has no explanation, an explanation and its labels have different sentences, or a
            label is unknown; the message names the clip.
    """
    labelled = _read_reference(reference) if reference is not None else None
    found: list[Sentence] = []
    for row in sorted(rows, key=lambda row: row.clip_id):
        texts = split_sentences(parse_completion(row.completion or "").explanation or "", semantics="strict")
        if not texts:
            raise DataError(
                f"clip {row.clip_id!r}: has no explanation to label; run ingest for reasoning again"
            )
        known = labelled.pop(row.clip_id, []) if labelled is not None else [(text, None) for text in texts]
        if [text for text, _ in known] != texts:
            raise DataError(
                f"clip {row.clip_id!r}: {REFERENCE_FILE} does not match its explanation"
                f" ({_difference(texts, [text for text, _ in known])}); label its sentences again"
            )
        found.extend(Sentence(text, row.dataset, row.clip_id, labels) for text, labels in known)
    if labelled:
        raise DataError(
            f"clip {min(labelled)!r}: {REFERENCE_FILE} labels it, but the manifest does not list it;"
            " run ingest for reasoning again"
        )
    return found


def loose_sentences(content: str, *, labelled: bool) -> list[Sentence]:
    """The sentences of `sentences.csv` (columns sentence and labels), in its order.

    Args:
        content: of the file.
        labelled: whether to read the labels, which may be missing otherwise.

    Raises:
        DataError: a column is missing, a sentence is blank, or a label is unknown; the message names the
            line.
    """
    space = LabelSpace.load("mafw")
    found = []
    for line, record in _records(
        content, SENTENCES_FILE, ("sentence", "labels") if labelled else ("sentence",)
    ):
        text = " ".join(record["sentence"].split())
        if not text:
            raise DataError(f"{SENTENCES_FILE}, line {line}: has no sentence; write one or remove the line")
        labels = _labels(space, record["labels"], f"{SENTENCES_FILE}, line {line}:") if labelled else None
        found.append(Sentence(text, "sentences", "", labels))
    return found


def read_rollouts(path: Path) -> tuple[list[tuple[str, str]], int]:
    """The explanations that the stage `rollouts` sampled.

    Args:
        path: its table.

    Returns:
        (clip id, explanation), sorted, and the number of completions without an explanation.

    Raises:
        DataError: the table is missing or damaged.
    """
    rows = read_parquet(path, "rollouts", ["clip_id", "explanation"]).to_pylist()
    found = sorted((row["clip_id"], row["explanation"]) for row in rows if row["explanation"] is not None)
    return found, len(rows) - len(found)


def rollout_sentences(explanations: Sequence[tuple[str, str]]) -> list[Sentence]:
    """The sentences of sampled explanations, given as (clip id, explanation), without labels."""
    return [
        Sentence(text, ROLLOUTS, clip_id)
        for clip_id, explanation in explanations
        for text in split_sentences(explanation, semantics="strict")
    ]


def _text(lock: Lock, store: ObjectStore | None, name: str) -> str:
    content = lock.read(store, name)
    if b"\0" in content:
        raise DataError(
            f"{lock.uri_of(name)}: has a NUL byte at {content.index(0)}, so it is damaged; fetch it again"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{lock.uri_of(name)}: not UTF-8 (byte {error.start}); save it again in UTF-8"
        ) from error


def _read_reference(text: str) -> dict[str, list[tuple[str, tuple[str, ...] | None]]]:
    """Labelled sentences by clip, in the order of their index."""
    space = LabelSpace.load("mafw")
    found: dict[str, list[tuple[int, str, tuple[str, ...]]]] = defaultdict(list)
    for _, record in _records(text, REFERENCE_FILE, ("name", "index", "sentence", "labels")):
        where = f"clip {record['name']!r}: {REFERENCE_FILE}, sentence {record['index']},"
        labels = _labels(space, record["labels"], where)
        if not re.fullmatch(r"\d{1,9}", record["index"]):
            raise DataError(
                f"clip {record['name']!r}: {REFERENCE_FILE} has index {record['index']!r}, expected a number"
            )
        found[record["name"]].append((int(record["index"]), record["sentence"], labels))
    return {name: [(text, labels) for _, text, labels in sorted(rows)] for name, rows in found.items()}


def _records(content: str, name: str, columns: Sequence[str]) -> Iterable[tuple[int, dict[str, str]]]:
    """Line number and content of each row; missing cells of a short row are empty.

    A row with more cells than columns is refused: a comma in a sentence without quotes would make the rest of
    the sentence its labels.
    """
    reader = csv.DictReader(io.StringIO(content.lstrip("\ufeff"), newline=""), restkey=_MORE, restval="")
    missing = set(columns) - set(reader.fieldnames or ())
    if missing:
        raise DataError(
            f"{name}: lacks the columns {', '.join(sorted(missing))}; expected {', '.join(columns)}"
        )
    try:
        for record in reader:
            if _MORE in record:
                count = len(reader.fieldnames or ())
                raise DataError(
                    f"{name}, line {reader.line_num}: more cells than the {count} columns; put text with a"
                    " comma in quotes"
                )
            yield reader.line_num, record
    except csv.Error as error:
        raise DataError(f"{name}, line {reader.line_num}: not CSV ({error}); fix that line") from error


def _labels(space: LabelSpace, text: str, where: str) -> tuple[str, ...]:
    names = [space.normalize(label) for label in text.split(";") if label.strip()]
    if not names or None in names:
        raise DataError(f"{where} has the labels {text!r}, expected names of the MAFW space with ';' between")
    return tuple(dict.fromkeys(str(name) for name in names))


def _difference(sentences: list[str], labelled: list[str]) -> str:
    if len(sentences) != len(labelled):
        return f"{len(sentences)} sentences, {len(labelled)} labelled"
    index = next(i for i, (a, b) in enumerate(zip(sentences, labelled, strict=True)) if a != b)
    return f"sentence {index}: {sentences[index]!r} against {labelled[index]!r}"
