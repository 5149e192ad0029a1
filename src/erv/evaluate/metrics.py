"""Metrics of recognition (WAR, UAR) and of explanations (EEA, EPC, FCR, inconsistency), as shares in 0..1.

One rule holds for all of them: a sample in which a part that the metric needs can't be read (no answer, an
answer that is not a label, nothing to judge, no truth) is wrong and stays in every total; an explanation in
which no emotion is read contradicts nothing, so it is not inconsistent, but one that is read as an emotion
outside the data set's list is. The released code differs in two places, see `recognition_metrics` (UAR) and
`explanation_metrics` (EEA); `semantics: official` gives its values. Where it crashes (no samples, or an
unreadable first one), the values here are defined.
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
from erv.settings.register import LOWER_IS_BETTER as LOWER_IS_BETTER
from erv.settings.register import NEITHER_IS_BETTER as NEITHER_IS_BETTER

METRICS = ("WAR", "UAR", "EEA", "EPC", "FCR", "inconsistency")
JUDGED = ("EEA", "EPC", "FCR", "inconsistency")  # what the reading of a judge decides
FURTHER = ("inconsistency_all", "format", "repetitive", "words", "sentences")
OUTSIDE = "(outside)"  # an emotion that is not in the data set's list
RELEASED = ("UAR", "EEA")  # where the released code gives another value
MEANINGS = {
    "WAR": "share of clips whose answer is right (accuracy)",
    "UAR": "recall of the answer, averaged over the emotions that occur among the clips",
    "EEA": "share of clips whose explanation, read alone, names the true emotion",
    "EPC": "share of clips whose explanation and answer name the same emotion",
    "FCR": "share of clips where explanation and answer both name the true emotion",
    "inconsistency": "of the clips answered right, share whose explanation names another emotion; lower is"
    " better",
    "inconsistency_all": "of the clips with an answer, right or wrong, share whose explanation names another"
    " emotion than the answer; lower is better",
    "format": "share of completions that are one filled think block and one filled answer block, no more",
    "repetitive": "share of clips whose explanation says a sentence twice; lower is better",
    "words": "words of an explanation, on average",
    "sentences": "sentences of an explanation, on average",
    "set_any": "share of clips whose answer names a true emotion",
    "set_precision": "of the emotions that an answer names, share that is true, on average",
    "set_recall": "of a clip's true emotions, share that the answer names, on average",
    "set_f1": "twice the shared emotions over the true and the named ones, on average",
    "set_jaccard": "of the emotions that are true or named, share that is both, on average",
    "EEA_any": "share of clips whose explanation, read alone, names one of the true emotions",
    "EPC_any": "share of clips whose explanation names one of the emotions that are answered",
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
    truth: Sequence[str | None],
    predicted: Sequence[str | None],
    judged: Sequence[str | None],
    *,
    semantics: Semantics = "strict",
    outside: Sequence[bool] | None = None,
    space: LabelSpace | None = None,
) -> dict[str, Any]:
    """EEA, EPC, FCR and inconsistency of n samples.

    EEA reads the explanation alone: a missing or foreign answer does not matter to it. EPC and FCR need both.

    Args:
        truth: n canonical names.
        predicted: n canonical names, None where the answer is unreadable.
        judged: n canonical names that a judge read from the explanation alone, None where there was nothing
            to judge.
        semantics: `official` counts a sample without a readable answer for none of the three, and one with
            any None not as a right answer, as the released code does. Use it only to compare with published
            figures.
        outside: n flags, of explanations that are read as an emotion outside the list (`judged` is None
            there); None if there are none. `official` takes no notice.
        space: of the names, which says what compound ones are made of; None if there are none.

    Returns:
        EEA (judged = truth), EPC (judged = predicted), FCR (all three equal), inconsistency (judged, but not
        as predicted or a part of it, or outside, among samples with predicted = truth) and inconsistency_all
        (the same among samples with a prediction), unreadable (samples with a None) and total. All are 0 for
        n = 0, except the two inconsistencies: None where there is nothing to count among.

    Raises:
        EvaluationError: the lists differ in length.
    """
    strange = [False] * len(truth) if outside is None or semantics == "official" else list(outside)
    _same_length(truth=truth, predicted=predicted, judged=judged, outside=strange)
    everything = list(zip(truth, predicted, judged, strict=True))
    rows = [row for row in everything if None not in row]
    read = rows if semantics == "official" else everything
    total = len(truth)
    share = 1.0 / total if total else 0.0
    # Heard outside the list, it is no label, but not nothing either.
    heard = [
        (*row[:2], row[2] or (OUTSIDE if odd else None)) for row, odd in zip(everything, strange, strict=True)
    ]
    answered = [row for row in (rows if semantics == "official" else heard) if row[1] is not None]
    right = [row for row in answered if row[0] == row[1]]
    return {
        "EEA": sum(heard is not None and true == heard for true, _, heard in read) * share,
        "EPC": sum(answer == heard for _, answer, heard in rows) * share,
        "FCR": sum(true == answer == heard for true, answer, heard in rows) * share,
        "inconsistency": _contradicted(right, space),
        "inconsistency_all": _contradicted(answered, space),
        "unreadable": total - len(rows),
        "total": total,
    }


def shuffled_eea(
    truth: Sequence[str],
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
        judged: n canonical names or None.
        groups: n names of data sets; labels are shuffled within a data set, since a judge only names the
            emotions of that set.
        seed: seed of the permutations.
        permutations: number of permutations.
    """
    _same_length(truth=truth, judged=judged, groups=groups)
    stream = np.random.default_rng(seed)
    labels, members = np.array(truth, dtype=object), np.array(groups, dtype=object)
    places = [np.flatnonzero(members == group) for group in sorted(set(groups))]
    total = 0.0
    for _ in range(permutations):
        shuffled = labels.copy()
        for place in places:
            shuffled[place] = labels[stream.permutation(place)]
        total += float(explanation_metrics(list(shuffled), judged, judged)["EEA"])
    return total / permutations


def all_metrics(
    truth: Sequence[str],
    predicted: Sequence[str | None],
    judged: Sequence[str | None],
    space: LabelSpace,
    *,
    outside: Sequence[bool] | None = None,
) -> dict[str, float | int | None]:
    """The metrics of one scope, the number of clips, and what the released code makes of UAR and EEA.

    UAR is averaged over the emotions that occur in `truth`, in the order of the space: a small test set, or
    one pooled from several data sets, may lack some. `UAR_released` is averaged over the whole space, where
    an absent emotion counts as 0, and leaves unreadable answers out in the MAFW space. `EEA_released` is 0
    where the answer can't be read. `outside` is as in `explanation_metrics`.
    """
    present = [name for name in space.names if name in set(truth)]
    recognition = recognition_metrics(truth, predicted, present)
    explanation = explanation_metrics(truth, predicted, judged, outside=outside, space=space)
    values = {**recognition, **explanation}
    result: dict[str, float | int | None] = {
        name: None if values[name] is None else round(float(values[name]), 6)
        for name in (*METRICS, "inconsistency_all")
    }
    result["clips"] = len(truth)
    official = {
        **recognition_metrics(truth, predicted, space, semantics="official"),
        **explanation_metrics(truth, predicted, judged, semantics="official"),
    }
    result |= {f"{name}_released": round(float(official[name]), 6) for name in RELEASED}
    return result


def _contradicted(rows: Sequence[tuple[str | None, ...]], space: LabelSpace | None) -> float | None:
    """The share of samples (truth, predicted, judged) in which an emotion is read that the answer hasn't."""
    if not rows:
        return None

    def shared(heard: str, answer: str) -> bool:
        return heard == answer or (space is not None and space.share_an_emotion(heard, answer))

    other = (heard is not None and not shared(heard, answer or "") for _, answer, heard in rows)
    return sum(other) / len(rows)


def _sentences(explanation: str | None) -> list[str]:
    return split_sentences(explanation, semantics="strict") if explanation else []


def _same_length(**columns: Sequence[Any]) -> None:
    if len({len(column) for column in columns.values()}) > 1:
        sizes = ", ".join(f"{name} {len(column)}" for name, column in columns.items())
        raise EvaluationError(f"metrics need one entry per sample in every list, found {sizes}")
