"""Metrics of recognition (WAR, UAR) and of explanations (EEA, EPC, FCR), as shares in 0..1.

One rule holds for all of them: a sample that can't be read (no answer, an answer that is not a label, nothing
to judge, no truth) is wrong and stays in every total. The released code agrees except in one place, see
`recognition_metrics`; where it crashes (no samples, or an unreadable first one), the values here are defined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from erv.errors import EvaluationError
from erv.labels import LabelSpace
from erv.prompts import parse_completion
from erv.sentences import Semantics, split_sentences

METRICS = ("WAR", "UAR", "EEA", "EPC", "FCR")
MEANINGS = {
    "WAR": "share of clips whose answer is right (accuracy)",
    "UAR": "recall of the answer, averaged over emotions",
    "EEA": "share of clips whose explanation, read alone, names the true emotion",
    "EPC": "share of clips whose explanation and answer name the same emotion",
    "FCR": "share of clips where explanation and answer both name the true emotion",
}


@dataclass(frozen=True)
class Reading:
    """What a completion says.

    Attributes:
        predicted: the answer as a name of the data set's space; None if there is none or it is not a label.
        explanation: the text of the think block; None when it is missing or blank.
        sentences: number of sentences of the explanation.
    """

    predicted: str | None
    explanation: str | None
    sentences: int


def read_completion(text: str, space: LabelSpace) -> Reading:
    """Reads a completion: first think block, first answer block, the answer through the label space."""
    parsed = parse_completion(text)
    explanation = parsed.explanation or None
    return Reading(space.normalize(parsed.answer), explanation, len(_sentences(explanation)))


def recognition_metrics(
    truth: Sequence[str | None],
    predicted: Sequence[str | None],
    label_space: LabelSpace | Sequence[str],
    *,
    semantics: Semantics = "strict",
) -> dict[str, Any]:
    """WAR, UAR and the confusion matrix of n samples.

    Args:
        truth: n canonical names; None counts as wrong, in no class.
        predicted: n canonical names; None or a foreign word is wrong and counts as unknown.
        label_space: the classes. UAR is averaged over all of them; a class without samples has recall 0.
        semantics: `official` leaves unknown predictions out of their class's total in the MAFW space, as the
            released MAFW code does (its DFEW code does not). That raises the UAR of a model whose answers
            can't be read. Use it only to compare with published figures.

    Returns:
        WAR, UAR, correct, total, unknown, per_class (name -> correct, total, recall) and confusion
        (rows truth, columns predicted, the last column unknown; a list of lists of int). All are 0 for n = 0.

    Raises:
        EvaluationError: truth and predictions differ in length.
    """
    _same_length(truth=truth, predicted=predicted)
    names = list(label_space.names if isinstance(label_space, LabelSpace) else label_space)
    column = {name: index for index, name in enumerate(names)}
    confusion = np.zeros((len(names), len(names) + 1), dtype=np.int64)
    for true, answer in zip(truth, predicted, strict=True):
        if true in column:
            confusion[column[true], column.get(answer or "", len(names))] += 1
    correct = int(np.trace(confusion))
    is_mafw = isinstance(label_space, LabelSpace) and label_space.name == "mafw"
    readable_only = semantics == "official" and is_mafw
    totals = confusion[:, :-1].sum(axis=1) if readable_only else confusion.sum(axis=1)
    recalls = [
        int(confusion[index, index]) / int(total) if total else 0.0 for index, total in enumerate(totals)
    ]
    return {
        "WAR": correct / len(truth) if truth else 0.0,
        "UAR": float(np.mean(recalls)) if truth else 0.0,
        "correct": correct,
        "total": len(truth),
        "unknown": sum(answer not in column for answer in predicted),
        "per_class": {
            name: {
                "correct": int(confusion[index, index]),
                "total": int(totals[index]),
                "recall": recalls[index],
            }
            for index, name in enumerate(names)
        },
        "confusion": confusion.tolist(),
    }


def explanation_metrics(
    truth: Sequence[str | None], predicted: Sequence[str | None], judged: Sequence[str | None]
) -> dict[str, Any]:
    """EEA, EPC and FCR of n samples.

    A sample with a missing truth, prediction or judgement counts for none of them, as in the released code:
    an explanation without an answer is a failed completion, however well it reads.

    Args:
        truth: n canonical names.
        predicted: n canonical names, None where the answer is unreadable.
        judged: n canonical names that a judge read from the explanation alone, None where there was nothing
            to judge.

    Returns:
        EEA (judged = truth), EPC (judged = predicted), FCR (all three equal), unreadable (samples with a
        None) and total. All are 0 for n = 0.

    Raises:
        EvaluationError: the lists differ in length.
    """
    _same_length(truth=truth, predicted=predicted, judged=judged)
    rows = [row for row in zip(truth, predicted, judged, strict=True) if None not in row]
    total = len(truth)
    share = 1.0 / total if total else 0.0
    return {
        "EEA": sum(true == heard for true, _, heard in rows) * share,
        "EPC": sum(answer == heard for _, answer, heard in rows) * share,
        "FCR": sum(true == answer == heard for true, answer, heard in rows) * share,
        "unreadable": total - len(rows),
        "total": total,
    }


def shuffled_eea(
    truth: Sequence[str],
    predicted: Sequence[str | None],
    judged: Sequence[str | None],
    groups: Sequence[str],
    *,
    seed: int,
    permutations: int = 100,
) -> float:
    """EEA against the labels of other clips, averaged over several seeded permutations.

    A control: what is left of EEA when explanations have nothing to do with their clips.

    Args:
        truth: n canonical names.
        predicted: n canonical names or None.
        judged: n canonical names or None.
        groups: n names of data sets; labels are shuffled within a data set, since a judge only names the
            emotions of that set.
        seed: seed of the permutations.
        permutations: number of permutations.
    """
    _same_length(truth=truth, predicted=predicted, judged=judged, groups=groups)
    stream = np.random.default_rng(seed)
    labels, members = np.array(truth, dtype=object), np.array(groups, dtype=object)
    places = [np.flatnonzero(members == group) for group in sorted(set(groups))]
    total = 0.0
    for _ in range(permutations):
        shuffled = labels.copy()
        for place in places:
            shuffled[place] = labels[stream.permutation(place)]
        total += float(explanation_metrics(list(shuffled), predicted, judged)["EEA"])
    return total / permutations


def all_metrics(
    truth: Sequence[str], predicted: Sequence[str | None], judged: Sequence[str | None], space: LabelSpace
) -> dict[str, float | int]:
    """The five metrics of one scope, with the number of clips and of malformed completions.

    UAR is averaged over the emotions that occur in `truth`, in the order of the space: a small test set, or
    one pooled from several data sets, may lack some.
    """
    present = [name for name in space.names if name in set(truth)]
    recognition = recognition_metrics(truth, predicted, present)
    explanation = explanation_metrics(truth, predicted, judged)
    values = {**recognition, **explanation}
    result: dict[str, float | int] = {name: round(float(values[name]), 6) for name in METRICS}
    result["clips"] = len(truth)
    result["malformed"] = sum(answer is None for answer in predicted)
    return result


def _sentences(explanation: str | None) -> list[str]:
    return split_sentences(explanation, semantics="strict") if explanation else []


def _same_length(**columns: Sequence[Any]) -> None:
    if len({len(column) for column in columns.values()}) > 1:
        sizes = ", ".join(f"{name} {len(column)}" for name, column in columns.items())
        raise EvaluationError(f"metrics need one entry per sample in every list, found {sizes}")
