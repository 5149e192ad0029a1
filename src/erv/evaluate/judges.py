"""Judges name the emotion that an explanation speaks of, without seeing clip, answer or truth.

What is optimised must not also evaluate. The lexical judge is a linear classifier of a bag of word pieces,
trained on its own texts (the judge source); the reward is a transformer trained on sentences of the reasoning
source. `check_independence` refuses to judge if the two share a text.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from erv.errors import EvaluationError
from erv.evaluate.score_intervals import share_score
from erv.labels import LabelSpace
from erv.sentences import UNREADABLE_SHARE, Vocabulary, normalize, split_sentences

if TYPE_CHECKING:
    from erv.settings import EvaluateSettings

TEXTS_FILE = "texts.csv"
HELD_OUT_SHARE = 0.2
MIN_PROBABILITY = 0.25
LEAST_TEXTS = 5  # held-out texts with which an emotion counts as measured
_CONFIDENCE = 0.95  # of the intervals of its quality


class Judge(Protocol):
    """Names one emotion per explanation."""

    name: str

    def judge(self, explanations: Sequence[str | None], space: LabelSpace) -> list[str | None]:
        """A name of `space` per explanation; None where there is nothing to read."""

    def unreadable(self, explanations: Sequence[str | None]) -> list[bool]:
        """Whether each explanation is outside what the judge can read: another language, unknown words."""

    def describe(self) -> dict[str, Any]:
        """What reports say of the judge: name, architecture, digest, numbers of texts, and its quality."""


class LexicalJudge:
    """TF-IDF over pieces of words, and multinomial logistic regression.

    Pieces (three to five letters), not words: the judge has to know "scornful" when its texts say "scorn".

    Attributes:
        name: `lexical`.
        held_out_accuracy: accuracy on the texts held out of training, chosen by a hash of the text. They come
            from the same generator as the others, so it says little about texts written by policies.
        digest: sha256 of architecture, threshold, texts with labels, and seed; equal for equal judges only.
        texts: all texts that it was given, trained on or not.
    """

    name = "lexical"
    architecture = "TF-IDF of pieces of words (3 to 5 letters), logistic regression"

    def __init__(self, texts: Sequence[str], labels: Sequence[str], *, seed: int = 0) -> None:
        """Trains the judge; equal inputs give an equal judge.

        Args:
            texts: n explanations.
            labels: n names of the MAFW space.
            seed: seed of the choice of held-out texts.

        Raises:
            EvaluationError: an unknown label, or too few texts to train on and to measure with.
        """
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        self._mafw = LabelSpace.load("mafw")
        names = [self._mafw.normalize(label) for label in labels]
        for label, name in zip(labels, names, strict=True):
            if name is None:
                raise EvaluationError(f"judge {TEXTS_FILE}: label {label!r} is not a name of the MAFW space")
        pairs = sorted(set(zip(texts, names, strict=True)))
        held_out = [pair for pair in pairs if _held_out(pair[0], seed)]
        kept = [pair for pair in pairs if not _held_out(pair[0], seed)]
        if not held_out or len({name for _, name in kept}) < 2:
            raise EvaluationError(
                f"judge {TEXTS_FILE}: {len(pairs)} different texts are too few to train and measure a judge"
            )
        self.texts = tuple(text for text, _ in pairs)
        self.digest = hashlib.sha256(
            json.dumps(
                [self.name, self.architecture, MIN_PROBABILITY, UNREADABLE_SHARE, seed, pairs],
                ensure_ascii=False,
            ).encode()
        ).hexdigest()
        self._vectorizer = TfidfVectorizer(
            analyzer="char_wb",
            ngram_range=(3, 5),
            sublinear_tf=True,
            max_df=0.5,
        )
        self._model = LogisticRegression(C=30.0, max_iter=1000, class_weight="balanced")
        features = self._vectorizer.fit_transform([text for text, _ in kept])
        self._model.fit(features, [name for _, name in kept])
        self._vocabulary = Vocabulary.of(text for text, _ in kept)
        self._trained_on = len(kept)
        self._held_out = len(held_out)
        read = self.judge([text for text, _ in held_out], self._mafw)
        right = Counter(name for heard, (_, name) in zip(read, held_out, strict=True) if heard == name)
        texts_of = Counter(name for _, name in held_out)
        self._measured = {name: {"texts": texts_of[name], "right": right[name]} for name in self._mafw.names}
        self.held_out_accuracy = right.total() / len(held_out)

    @classmethod
    def from_csv(cls, text: str, *, seed: int = 0) -> LexicalJudge:
        """Trains a judge on the content of `texts.csv` (columns text and label)."""
        reader = csv.DictReader(io.StringIO(text.lstrip("\ufeff")))
        missing = {"text", "label"} - set(reader.fieldnames or ())
        if missing:
            raise EvaluationError(f"judge {TEXTS_FILE}: lacks the columns {', '.join(sorted(missing))}")
        rows = list(reader)
        return cls([row["text"] for row in rows], [row["label"] for row in rows], seed=seed)

    def judge(self, explanations: Sequence[str | None], space: LabelSpace) -> list[str | None]:
        """Names the emotion of each explanation among those of a data set's space.

        Args:
            explanations: n texts, read whole.
            space: the data set's own space; emotions without a counterpart in it are ignored, just as a judge
                model would only be given the data set's labels.

        Returns:
            n names of `space`; None for a missing, blank or unreadable explanation, and for one in which no
            emotion stands out (no class reaches `MIN_PROBABILITY`): no reading is not the same as neutral.
        """
        to_space = self._mafw.to(space)
        classes = [str(name) for name in self._model.classes_]
        allowed = [index for index, name in enumerate(classes) if to_space(name) is not None]
        judged: list[str | None] = [None] * len(explanations)
        if not judged or not allowed:
            return judged
        features = self._vectorizer.transform([text or "" for text in explanations]).tocsr()
        scores = self._model.predict_proba(features)
        # Otherwise the intercepts would decide where no word is known, and chance where no emotion is named.
        readable = (np.diff(features.indptr) > 0) & (scores.max(axis=1) >= MIN_PROBABILITY)
        readable &= ~np.array(self.unreadable(explanations))
        for index in np.flatnonzero(readable):
            judged[int(index)] = to_space(classes[allowed[int(np.argmax(scores[index, allowed]))]])
        return judged

    def unreadable(self, explanations: Sequence[str | None]) -> list[bool]:
        """Whether hardly any word of each explanation is in the judge's own texts (`Vocabulary`)."""
        return [text is not None and self._vocabulary.unreadable(text) for text in explanations]

    def describe(self) -> dict[str, Any]:
        """What is known of the judge.

        Returns:
            name, architecture, digest, trained_on and held_out (numbers of texts), held_out_accuracy with its
            95% interval (held_out_low, held_out_high), held_out_recall (the mean over the emotions among the
            held-out texts of the share that it is right on) with its own (held_out_recall_low and _high),
            and held_out_emotions: `texts` and `right` by emotion, 0 for those that no held-out text has.
        """
        rows = [row for row in self._measured.values() if row["texts"]]
        counts, right = [row["texts"] for row in rows], [row["right"] for row in rows]
        recall = sum(k / n for k, n in zip(right, counts, strict=True)) / len(counts)
        low, high = share_score([sum(right)], [sum(counts)], _CONFIDENCE)
        recall_low, recall_high = share_score(right, counts, _CONFIDENCE)
        return {
            "name": self.name,
            "architecture": self.architecture,
            "digest": self.digest,
            "trained_on": self._trained_on,
            "held_out": self._held_out,
            "held_out_accuracy": round(self.held_out_accuracy, 6),
            "held_out_low": round(low, 6),
            "held_out_high": round(high, 6),
            "held_out_recall": round(recall, 6),
            "held_out_recall_low": round(recall_low, 6),
            "held_out_recall_high": round(recall_high, 6),
            "held_out_emotions": self._measured,
        }


def judge_quality(described: Mapping[str, Any]) -> str:
    """One line: `right on 84.0% of 94 held-out texts (85.1% are neutral); mean over 7 emotions 14.3% ...`.

    Args:
        described: from `Judge.describe`.
    """
    texts = {name: row["texts"] for name, row in described["held_out_emotions"].items()}
    commonest = max(texts, key=lambda name: texts[name])
    unmeasured = [name for name, count in texts.items() if not count]
    accuracy, recall, low, high = (
        100 * described[f"held_out_{name}"] for name in ("accuracy", "recall", "recall_low", "recall_high")
    )
    return (
        f"right on {accuracy:.1f}% of {described['held_out']} held-out texts"
        f" ({100 * texts[commonest] / described['held_out']:.1f}% are {commonest}); mean over"
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
        described: from `Judge.describe`.
        settings: the section `evaluate`.
        datasets: the data sets whose clips are tested; the judge must know their emotions.

    Raises:
        EvaluationError: below `minimum_judge_accuracy`, `minimum_judge_texts` or `minimum_judge_emotions`, or
            not better than a judge that always names the same emotion (unless the minimum is 0).
    """
    minimum, texts = settings.minimum_judge_accuracy, settings.minimum_judge_texts
    counted = {name: row["texts"] for name, row in described["held_out_emotions"].items()}
    low, always_one = described["held_out_recall_low"], 1.0 / sum(count > 0 for count in counted.values())
    if described["held_out"] < texts or low < minimum or 0 < minimum <= low <= always_one:
        raise EvaluationError(
            f"the judge is {judge_quality(described)}; the lower end must be {100 * minimum:g}% or more"
            f" (evaluate.minimum_judge_accuracy) and above the {100 * always_one:.1f}% of a judge that always"
            f" names the same emotion, on {texts} texts or more (evaluate.minimum_judge_texts), or EEA, EPC"
            f" and FCR mean little; give {TEXTS_FILE} of the judge source more texts, or lower the minimum if"
            " you want it anyway"
        )
    tested = _tested(datasets)
    lacking = [name for name in tested if counted[name] < LEAST_TEXTS]
    if len(tested) - len(lacking) < settings.minimum_judge_emotions * len(tested):
        raise EvaluationError(
            f"the judge was measured on {len(tested) - len(lacking)} of the {len(tested)} emotions of"
            f" {', '.join(datasets)} (with {LEAST_TEXTS} held-out texts or more each); not on"
            f" {', '.join(lacking)}. It must be at least {100 * settings.minimum_judge_emotions:g}% of them"
            f" (evaluate.minimum_judge_emotions): give {TEXTS_FILE} of the judge source texts of these"
            " emotions, or lower the minimum if you want it anyway"
        )


def _tested(datasets: Sequence[str]) -> list[str]:
    """The emotions that clips of these data sets can have, in the MAFW space."""
    mafw = LabelSpace.load("mafw")
    found = set()
    for dataset in datasets:
        space = LabelSpace.load(dataset)
        found |= set(map(space.to(mafw), space.names))
    return [name for name in mafw.names if name in found]


def check_independence(judge_texts: Iterable[str], verifier_sentences: Iterable[str]) -> None:
    """Refuses a judge that was given a sentence on which the verifier was trained or measured.

    Raises:
        EvaluationError: they share a sentence, ignoring case, punctuation and white space.
    """
    sentences = {normalize(sentence) for sentence in verifier_sentences}
    for text in judge_texts:
        for sentence in split_sentences(text, semantics="strict"):
            if normalize(sentence) in sentences:
                raise EvaluationError(
                    f"the judge and the verifier share the sentence {sentence!r}; give the judge texts of its"
                    " own, or it measures what was optimised"
                )


def _held_out(text: str, seed: int) -> bool:
    digest = hashlib.sha256(f"{seed}/judge/{text}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < HELD_OUT_SHARE
