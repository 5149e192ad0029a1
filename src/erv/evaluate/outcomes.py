"""What each clip adds to each metric.

Every metric but UAR is a sum over clips divided by another: by the number of clips (a share of all clips, or
a mean), or by a number that varies with the clips, as inconsistency counts among right answers only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from erv.labels import LabelSpace
from erv.prompts import is_well_formed, parse_completion
from erv.sentences import count_words, normalize, split_sentences

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Term:
    """A metric, clip by clip.

    Attributes:
        over: what is added up, float32 [clips]; of a share, 1 where the clip counts.
        of: which clips are counted among, float32 [clips] of 0 and 1; None if all are.
    """

    over: np.ndarray
    of: np.ndarray | None = None

    @property
    def value(self) -> float | None:
        """The metric; None if there is no clip to count among."""
        total = len(self.over) if self.of is None else float(self.of.sum())
        return float(self.over.sum(dtype=np.float64)) / total if total else None


def in_order(rows: Sequence[Row]) -> list[Row]:
    """Rows by data set and clip: the order of every array here."""
    return sorted(rows, key=lambda row: (row["dataset"], row["clip_id"]))


def answer_terms(rows: Sequence[Row]) -> dict[str, Term]:
    """WAR of rows that are `in_order`: what no judge decides."""
    return {"WAR": _term(row["predicted"] == row["label"] for row in rows)}


def explanation_terms(rows: Sequence[Row]) -> dict[str, Term]:
    """What a judge's reading decides, from `judged`: EEA, EPC, FCR and both inconsistencies.

    An emotion outside the data set's list (`heard_outside`) is another one than any answer's. An explanation
    of one of an answer's emotions ("anger", of "anger and disgust") doesn't contradict it, see `contradicts`.

    Args:
        rows: rows of the predictions table, `in_order`.
    """
    heard = np.array([row["judged"] is not None for row in rows], dtype=bool)
    answered = np.array([row["predicted"] is not None for row in rows], dtype=bool)
    right = np.array([row["predicted"] == row["label"] for row in rows], dtype=bool)
    true = heard & np.array([row["judged"] == row["label"] for row in rows], dtype=bool)
    same = heard & np.array([row["judged"] == row["predicted"] for row in rows], dtype=bool)
    flags = {"EEA": true, "EPC": same, "FCR": true & right}
    terms = {name: Term(flag.astype(np.float32)) for name, flag in flags.items()}
    other = np.array([contradicts(row) for row in rows], dtype=bool)
    for name, among in (("inconsistency", right), ("inconsistency_all", answered)):
        terms[name] = Term((other & among).astype(np.float32), among.astype(np.float32))
    return terms


def contradicts(row: Row) -> bool:
    """Whether the explanation was read as another emotion than the answer, or than any of a compound one."""
    judged, answer = row["judged"], row["predicted"]
    if answer is None:
        return False
    if judged is None:
        return heard_outside(row)
    return judged != answer and not LabelSpace.load(row["dataset"]).share_an_emotion(judged, answer)


def heard_outside(row: Row) -> bool:
    """Whether the explanation was read as an emotion outside the data set's list.

    Rows from `erv.evaluate.judges.panel.read_by` say so for their judge in `outside`. For others the first
    judge does, whose reading `judged` is; rows without verdicts don't know.
    """
    if row["judged"] is not None:
        return False
    if "outside" in row:
        return bool(row["outside"])
    said: Sequence[Row] = row.get("verdicts") or []
    return bool(said) and said[0]["outcome"] == "outside"


class Shape(NamedTuple):
    """The form of a completion: whether it keeps the format, whether its explanation repeats a sentence, and
    the explanation's words and sentences.
    """

    format: bool
    repetitive: bool
    words: int
    sentences: int


def shape_of(completion: str) -> Shape:
    """Reads the form of a completion; one without an explanation has no word and no sentence."""
    explanation = parse_completion(completion).explanation or ""
    said = [normalize(text) for text in split_sentences(explanation, semantics="strict")]
    return Shape(
        is_well_formed(completion),
        len(set(said)) < len(said),
        sum(count_words(text) for text in said),
        len(said),
    )


def shape_terms(shapes: Sequence[Shape]) -> dict[str, Term]:
    """`format`, `repetitive`, `words` and `sentences` of completions in the order of their rows."""
    return {name: _term(getattr(shape, name) for shape in shapes) for name in Shape._fields}


def _term(values: Iterable[float]) -> Term:
    return Term(np.fromiter((float(value) for value in values), dtype=np.float32))
