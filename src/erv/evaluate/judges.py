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
import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from erv.errors import EvaluationError
from erv.labels import LabelSpace
from erv.sentences import UNREADABLE_SHARE, Vocabulary, normalize, split_sentences

if TYPE_CHECKING:
    from erv.settings import EvaluateSettings

TEXTS_FILE = "texts.csv"
HELD_OUT_SHARE = 0.2
MIN_PROBABILITY = 0.25


class Judge(Protocol):
    """Names one emotion per explanation."""

    name: str

    def judge(self, explanations: Sequence[str | None], space: LabelSpace) -> list[str | None]:
        """A name of `space` per explanation; None where there is nothing to read."""

    def unreadable(self, explanations: Sequence[str | None]) -> list[bool]:
        """Whether each explanation is outside what the judge can read: another language, unknown words."""

    def describe(self) -> dict[str, Any]:
        """What reports say of the judge: name, architecture, digest, number of texts, held-out accuracy."""


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
        right = sum(heard == name for heard, (_, name) in zip(read, held_out, strict=True))
        self.held_out_accuracy = right / len(held_out)

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
        if not judged:
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
        """Name, architecture, digest, numbers of texts, and accuracy on those held out with its interval."""
        low, high = _wilson(self.held_out_accuracy, self._held_out)
        return {
            "name": self.name,
            "architecture": self.architecture,
            "digest": self.digest,
            "trained_on": self._trained_on,
            "held_out": self._held_out,
            "held_out_accuracy": round(self.held_out_accuracy, 6),
            "held_out_low": round(low, 6),
            "held_out_high": round(high, 6),
        }


def judge_quality(described: Mapping[str, Any]) -> str:
    """`right on 100.0% of 147 held-out texts (95% interval 97.5 to 100.0)`, from `describe`."""
    accuracy, low, high = (100 * described[f"held_out_{name}"] for name in ("accuracy", "low", "high"))
    return (
        f"right on {accuracy:.1f}% of {described['held_out']} held-out texts"
        f" (95% interval {low:.1f} to {high:.1f})"
    )


def require_quality(described: Mapping[str, Any], settings: EvaluateSettings) -> None:
    """Refuses a judge that is too poor, or measured on too few texts.

    Args:
        described: from `Judge.describe`.
        settings: the section `evaluate`.

    Raises:
        EvaluationError: below `minimum_judge_accuracy` or `minimum_judge_texts`.
    """
    minimum, texts = settings.minimum_judge_accuracy, settings.minimum_judge_texts
    if described["held_out"] < texts or described["held_out_low"] < minimum:
        raise EvaluationError(
            f"the judge is {judge_quality(described)}; the lower end must be {100 * minimum:g}% or more"
            f" (evaluate.minimum_judge_accuracy) on {texts} texts or more (evaluate.minimum_judge_texts), or"
            f" EEA, EPC and FCR mean little; give {TEXTS_FILE} of the judge source more texts, or lower the"
            " minimum if you want it anyway"
        )


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


def _wilson(share: float, count: int) -> tuple[float, float]:
    """The 95% score interval of a share of `count` texts (Wilson, 1927)."""
    z = NormalDist().inv_cdf(0.975)
    middle = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def _held_out(text: str, seed: int) -> bool:
    digest = hashlib.sha256(f"{seed}/judge/{text}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < HELD_OUT_SHARE
