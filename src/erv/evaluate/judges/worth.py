"""A judge's worth: how often it is right on explanations by policies, whose emotion a person has named.

`data/judge_texts/README.md` says how the shipped texts were made.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erv.errors import EvaluationError
from erv.evaluate.judges.protocol import SPACE, Judge, Verdict
from erv.evaluate.score_intervals import share_score
from erv.labels import LabelSpace
from erv.sentences import normalize, split_sentences

if TYPE_CHECKING:
    from erv.settings import EvaluateSettings

NONE = "none"  # the label of a text that speaks of no emotion, or of several alike
LEAST_TEXTS = 5  # texts with which an emotion counts as measured
_CONFIDENCE = 0.95
_COLUMNS = {"text", "label"}


@dataclass(frozen=True)
class LabelledText:
    """An explanation, and the emotion that a person read in it.

    Attributes:
        text: the explanation.
        label: a name of the space, or None.
        space: `mafw`, or the data set whose own emotion it is, one that MAFW has no name for.
    """

    text: str
    label: str | None
    space: str = SPACE


def read_labelled(path: Path, datasets: Sequence[str] = ()) -> list[LabelledText]:
    """The texts of a CSV file with the columns text and label.

    Args:
        path: the file.
        datasets: those whose clips are tested; a label may be an emotion of their own spaces.

    Raises:
        EvaluationError: the file is missing, is not such a file, has an unknown label, or labels a text
            twice.
        DataError: a data set has no label space, or one without a map to MAFW.
    """
    spaces = {name: LabelSpace.load(name) for name in dict.fromkeys([SPACE, *datasets])}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            missing = sorted(_COLUMNS - set(reader.fieldnames or ()))
            rows = list(reader)
    except FileNotFoundError:
        raise EvaluationError(
            f"{path}: not found; restore it from git, or write explanations (text, label) of your policies"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise EvaluationError(f"{path}: not a CSV file in UTF-8 ({error}); save it as one") from None
    if missing:
        raise EvaluationError(f"{path}: lacks the columns {', '.join(missing)}; add them")
    found: dict[str, LabelledText] = {}
    for number, row in enumerate(rows, start=2):
        text, said = row["text"] or "", row["label"] or ""
        none = said.strip().lower() == NONE
        item = LabelledText(text, None) if none else _labelled(text, said, spaces)
        if item is None:
            names = [*spaces[SPACE].names, *own_emotions(datasets)]
            raise EvaluationError(
                f"{path}: row {number} has the label {said!r}; expected {NONE} or one of"
                f" {', '.join(names)}; an emotion of another data set needs that data set in roles.test"
            )
        if text in found:
            raise EvaluationError(f"{path}: row {number} repeats a text; remove one of the two")
        found[text] = item
    return list(found.values())


def own_emotions(datasets: Sequence[str]) -> list[str]:
    """The emotions of these data sets that MAFW has no name for, in their order."""
    spaces = [LabelSpace.load(name) for name in datasets]
    found = [name for space in spaces for name in space.names if space.to(SPACE)(name) is None]
    return list(dict.fromkeys(found))


def _labelled(text: str, said: str, spaces: Mapping[str, LabelSpace]) -> LabelledText | None:
    """A text with its label under its MAFW name, or else under that of the first data set that has it."""
    for dataset, space in spaces.items():
        name = space.normalize(said)
        if name is not None:
            pooled = space.to(SPACE)(name)
            return LabelledText(text, name, dataset) if pooled is None else LabelledText(text, pooled)
    return None


def _sentences(text: str) -> list[tuple[str, str]]:
    """The sentences of a text, each after the words by which equal ones are found."""
    return [(normalize(sentence), sentence) for sentence in split_sentences(text, semantics="strict")]


def measure_worth(judge: Judge, labelled: Sequence[LabelledText]) -> dict[str, Any]:
    """How a judge does on labelled explanations, read in the MAFW space, or in that of their own emotion.

    Returns:
        texts (that speak of one emotion) and right (of these), accuracy with its 95% interval (low, high),
        recall (the mean over the emotions among them of the share that it is right on) with its own
        (recall_low, recall_high), emotions (`texts` and `right` by emotion, 0 for those of MAFW that no text
        has), none (`texts` that speak of none or of several, and on how many of them it named none: `silent`)
        and outcomes (its verdicts on all texts by outcome). Shares are rounded to 6 digits.

    Raises:
        EvaluationError: no text speaks of an emotion, or the judge was trained on a sentence of one.
    """
    space = LabelSpace.load(SPACE)
    learned = {key: sentence for text in judge.texts for key, sentence in _sentences(text)}
    for key, sentence in (pair for item in labelled for pair in _sentences(item.text)):
        if key in learned:
            raise EvaluationError(
                f"the judge {judge.name} was trained on the sentence {sentence!r}, which is in a labelled"
                " explanation, so its worth can't be measured there; remove it from the judge's texts"
            )
    verdicts = _verdicts(judge, labelled)
    texts = Counter(item.label for item in labelled)
    right = Counter(
        item.label for item, verdict in zip(labelled, verdicts, strict=True) if verdict.emotion == item.label
    )
    names = dict.fromkeys([*space.names, *(item.label for item in labelled if item.label is not None)])
    emotions = {name: {"texts": texts[name], "right": right[name]} for name in names}
    measured = [row for row in emotions.values() if row["texts"]]
    if not measured:
        raise EvaluationError(
            "no labelled explanation speaks of an emotion, so no judge can be measured; restore"
            " data/judge_texts from git, or label explanations of your own policies"
        )
    counts, hits = [row["texts"] for row in measured], [row["right"] for row in measured]
    low, high = share_score([sum(hits)], [sum(counts)], _CONFIDENCE)
    recall_low, recall_high = share_score(hits, counts, _CONFIDENCE)
    shares = {
        "accuracy": sum(hits) / sum(counts),
        "low": low,
        "high": high,
        "recall": sum(k / n for k, n in zip(hits, counts, strict=True)) / len(counts),
        "recall_low": recall_low,
        "recall_high": recall_high,
    }
    return {
        "texts": sum(counts),
        "right": sum(hits),
        **{name: round(value, 6) for name, value in shares.items()},
        "emotions": emotions,
        "none": {"texts": texts[None], "silent": right[None]},
        "outcomes": dict(sorted(Counter(verdict.outcome for verdict in verdicts).items())),
    }


def _verdicts(judge: Judge, labelled: Sequence[LabelledText]) -> list[Verdict]:
    """In the order of the texts; each is read once, in the space of its label."""
    found: dict[int, Verdict] = {}
    for name in dict.fromkeys(item.space for item in labelled):
        places = [place for place, item in enumerate(labelled) if item.space == name]
        said = judge.judge([labelled[place].text for place in places], LabelSpace.load(name))
        found |= dict(zip(places, said, strict=True))
    return [found[place] for place in range(len(labelled))]


def unmeasured(described: Mapping[str, Any], datasets: Sequence[str]) -> str | None:
    """A sentence on the emotions outside MAFW on which a judge was not measured; None if there are none.

    Args:
        described: what a judge says of itself, with its `worth`.
        datasets: the data sets whose clips are tested.
    """
    counted = described["worth"]["emotions"]
    lacking = [
        name for name in own_emotions(datasets) if counted.get(name, {"texts": 0})["texts"] < LEAST_TEXTS
    ]
    if not lacking:
        return None
    return (
        f"the worth of the judge {described['name']} says nothing of {', '.join(lacking)}: fewer than"
        f" {LEAST_TEXTS} labelled explanations each; label some in data/judge_texts"
    )


def judge_quality(described: Mapping[str, Any]) -> str:
    """One line: `right on 94.9% of 177 hand-labelled explanations (15.8% are anxiety); mean over ...`.

    Args:
        described: what a judge says of itself, with its `worth`.
    """
    worth = described["worth"]
    texts = {name: row["texts"] for name, row in worth["emotions"].items()}
    commonest = max(texts, key=lambda name: texts[name])
    unmeasured = [name for name, count in texts.items() if not count]
    accuracy, recall, low, high = (
        100 * worth[name] for name in ("accuracy", "recall", "recall_low", "recall_high")
    )
    return (
        f"right on {accuracy:.1f}% of {worth['texts']} hand-labelled explanations"
        f" ({100 * texts[commonest] / worth['texts']:.1f}% are {commonest}); mean over"
        f" {len(texts) - len(unmeasured)} emotions {recall:.1f}% (95% interval {low:.1f} to {high:.1f})"
        + (f"; not measured: {', '.join(unmeasured)}" if unmeasured else "")
    )


def require_quality(
    described: Mapping[str, Any], settings: EvaluateSettings, datasets: Sequence[str]
) -> None:
    """Refuses a judge that is too poor, measured on too few texts, or on too few emotions.

    What counts is the mean over emotions of the share that it is right on: a judge that calls everything
    neutral is right on most texts of a set in which most are neutral.

    Args:
        described: what a judge says of itself, with its `worth`.
        settings: the section `evaluate`.
        datasets: the data sets whose clips are tested; the judge must know their emotions.

    Raises:
        EvaluationError: below `minimum_judge_accuracy`, `minimum_judge_texts` or `minimum_judge_emotions`, or
            not better than a judge that always names the same emotion (unless the minimum is 0).
    """
    minimum, texts = settings.minimum_judge_accuracy, settings.minimum_judge_texts
    worth = described["worth"]
    counted = {name: row["texts"] for name, row in worth["emotions"].items()}
    low, always_one = worth["recall_low"], 1.0 / sum(count > 0 for count in counted.values())
    if worth["texts"] < texts or low < minimum or 0 < minimum <= low <= always_one:
        raise EvaluationError(
            f"the judge {described['name']} is {judge_quality(described)}; the lower end must be"
            f" {100 * minimum:g}% or more (evaluate.minimum_judge_accuracy) and above the"
            f" {100 * always_one:.1f}% of a judge that always names the same emotion, on {texts} texts or"
            " more (evaluate.minimum_judge_texts), or EEA, EPC and FCR mean little; take another judge, label"
            " more explanations in data/judge_texts, or lower the minimum if you want it anyway"
        )
    tested = _tested(datasets)
    lacking = [name for name in tested if counted[name] < LEAST_TEXTS]
    if len(tested) - len(lacking) < settings.minimum_judge_emotions * len(tested):
        raise EvaluationError(
            f"the judge {described['name']} was measured on {len(tested) - len(lacking)} of the"
            f" {len(tested)} emotions of {', '.join(datasets)} (with {LEAST_TEXTS} labelled explanations or"
            f" more each); not on {', '.join(lacking)}. It must be at least"
            f" {100 * settings.minimum_judge_emotions:g}% of them (evaluate.minimum_judge_emotions): label"
            " explanations of these emotions in data/judge_texts, or lower the minimum if you want it anyway"
        )


def _tested(datasets: Sequence[str]) -> list[str]:
    """The emotions that clips of these data sets can have, in the MAFW space."""
    mafw = LabelSpace.load(SPACE)
    found = set()
    for dataset in datasets:
        space = LabelSpace.load(dataset)
        found |= set(map(space.to(mafw), space.names))
    return [name for name in mafw.names if name in found]
