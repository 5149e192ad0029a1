"""Labelled sentences for the verifier: the teachers' labels, and splits that share no text."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from erv.chat import Refusal
from erv.distill.corpus import Sentence
from erv.distill.table import QUARANTINE_SCHEMA, SCHEMA
from erv.distill.teachers.agreement import agreement, majority
from erv.distill.teachers.protocol import Teacher, Verdict
from erv.errors import DataError
from erv.labels import LabelSpace
from erv.manifest import SPLITS
from erv.sentences import normalize
from erv.settings import DistillSettings

UNLABELLED = Refusal("unlabelled", "came without labels")


@dataclass(frozen=True)
class Distilled:
    """The result of distillation.

    Attributes:
        sentences: table with `SCHEMA`, in the order of the corpus.
        quarantine: table with `QUARANTINE_SCHEMA`: the sentences without labels from a teacher or a majority.
        summary: counts, class balance and agreement; see `docs/verifier.md`.
    """

    sentences: pa.Table
    quarantine: pa.Table
    summary: dict[str, Any]


def distill(
    corpus: Sequence[Sentence], teachers: Mapping[str, Teacher | None], settings: DistillSettings, seed: int
) -> Distilled:
    """Has every sentence labelled; several teachers decide by majority.

    Args:
        corpus: the sentences.
        teachers: by name, in order; None for the labels that came with the corpus.
        settings: section `distill`.
        seed: of the split. Sentences are split by text, wherever they occur (by a hash of the text without
            case, punctuation and white space). Explanations share phrases, so held-out whole explanations
            would consist of sentences that were trained on.

    Raises:
        DataError: more sentences in quarantine than `settings.max_quarantine_share` allows, or none left.
        ErvError: a teacher can't continue.
    """
    texts = [sentence.text for sentence in corpus]
    verdicts = {
        name: [sentence.labels or UNLABELLED for sentence in corpus]
        if teacher is None
        else teacher.label(texts)
        for name, teacher in teachers.items()
    }
    names = LabelSpace.load("mafw").names
    decided: list[Verdict] = list(next(iter(verdicts.values())))
    if len(verdicts) > 1:
        decided = [majority(said, names) for said in zip(*verdicts.values(), strict=True)]
    who = next(iter(teachers)) if len(teachers) == 1 else f"majority of {', '.join(teachers)}"
    kept: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    for sentence, verdict in zip(corpus, decided, strict=True):
        record = {
            "sentence": sentence.text,
            "source": sentence.source,
            "clip_id": sentence.clip_id,
            "teacher": who,
        }
        if isinstance(verdict, Refusal):
            refused.append({**record, "reason": verdict.reason, "detail": verdict.detail})
        else:
            kept.append({**record, "labels": list(verdict), "split": _split(sentence.text, settings, seed)})
    _check(refused, len(corpus), settings.max_quarantine_share)
    return Distilled(
        pa.Table.from_pylist(kept, schema=SCHEMA),
        pa.Table.from_pylist(refused, schema=QUARANTINE_SCHEMA),
        _summary(kept, refused, verdicts, names),
    )


def _summary(
    kept: Sequence[Mapping[str, Any]],
    refused: Sequence[Mapping[str, Any]],
    verdicts: Mapping[str, Sequence[Verdict]],
    names: Sequence[str],
) -> dict[str, Any]:
    """The content of `data/sentences.json`; a text counts once in the class balance."""
    texts = {normalize(row["sentence"]): row for row in kept}
    balance = Counter((label, row["split"]) for row in texts.values() for label in row["labels"])
    labels = [len(row["labels"]) for row in texts.values()]
    return {
        "sentences": len(kept),
        "texts": len(texts),
        "labels_per_text": round(sum(labels) / len(labels), 6) if labels else 0.0,
        "quarantined": dict(sorted(Counter(row["reason"] for row in refused).items())),
        "sources": dict(sorted(Counter(row["source"] for row in kept).items())),
        "splits": {split: sum(row["split"] == split for row in texts.values()) for split in SPLITS},
        "balance": {name: {split: balance[name, split] for split in SPLITS} for name in names},
        "teachers": {
            teacher: {
                "labelled": sum(isinstance(verdict, tuple) for verdict in said),
                "refused": sum(isinstance(verdict, Refusal) for verdict in said),
            }
            for teacher, said in verdicts.items()
        },
        "agreement": agreement(verdicts, names)["pairs"],
    }


def _check(refused: Sequence[Mapping[str, Any]], count: int, allowed: float) -> None:
    if not count:
        raise DataError(
            "there is no sentence to label: roles.cold_start has no explanations, its source no"
            " sentences.csv, and rollouts sampled none; see 'Without a reasoning set' in docs/data.md"
        )
    if len(refused) <= allowed * count:
        return
    reasons = Counter(row["reason"] for row in refused).most_common()
    first = refused[0]
    raise DataError(
        f"{len(refused)} of {count} sentences got no labels"
        f" ({', '.join(f'{reason} {number}' for reason, number in reasons)}), at most {allowed:.0%} may; the"
        f" first is {first['sentence'][:80]!r}: {first['detail'][:160]}; choose other teachers or raise"
        " distill.max_quarantine_share"
    )


def _split(sentence: str, settings: DistillSettings, seed: int) -> str:
    digest = hashlib.sha256(f"{seed}/distill/{normalize(sentence)}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < settings.test_share:
        return "test"
    return "validation" if position < settings.test_share + settings.validation_share else "train"
