"""A judge that knows emotions by pieces of words: a linear classifier, trained on its own texts.

It reads sentence by sentence. A whole explanation in one vector is mostly grammar and words for parts of the
face, which several emotions share: read whole, only 8 of 17 hand-labelled explanations of fear were read as
fear. The verdict is the emotion with the highest mean over those sentences in which one stands out.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from erv.errors import EvaluationError
from erv.evaluate.judges.protocol import SILENT, SPACE, UNREADABLE, Verdict, placed
from erv.labels import LabelSpace
from erv.sentences import UNREADABLE_SHARE, Vocabulary, split_sentences

TEXTS_FILE = "texts.csv"
MIN_PROBABILITY = 0.25


class LexicalJudge:
    """TF-IDF over pieces of words, and multinomial logistic regression.

    Pieces (three to five letters), not words: the judge has to know "scornful" when its texts say "scorn".

    Attributes:
        name: `lexical`.
        texts: all texts that it was trained on.
        weights: none.
        digest: sha256 of architecture, threshold and texts with labels; equal for equal judges only. Its code
            has a digest of its own, see `erv.evaluate.code`.
    """

    name = "lexical"
    architecture = "TF-IDF of pieces of words (3 to 5 letters), logistic regression, sentence by sentence"
    weights: frozenset[str] = frozenset()

    def __init__(self, texts: Sequence[str], labels: Sequence[str]) -> None:
        """Trains the judge; equal inputs give an equal judge.

        Args:
            texts: n explanations.
            labels: n names of the MAFW space.

        Raises:
            EvaluationError: an unknown label, or texts of fewer than two emotions.
        """
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        self._mafw = LabelSpace.load(SPACE)
        names = [self._mafw.normalize(label) for label in labels]
        for label, name in zip(labels, names, strict=True):
            if name is None:
                raise EvaluationError(f"judge {TEXTS_FILE}: label {label!r} is not a name of the MAFW space")
        pairs = sorted(set(zip(texts, names, strict=True)))
        if len({name for _, name in pairs}) < 2:
            raise EvaluationError(
                f"judge {TEXTS_FILE}: {len(pairs)} different texts are too few to train a judge; give texts"
                " of two emotions at least"
            )
        self.texts = tuple(text for text, _ in pairs)
        self.digest = hashlib.sha256(
            json.dumps(
                [self.name, self.architecture, MIN_PROBABILITY, UNREADABLE_SHARE, pairs],
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
        features = self._vectorizer.fit_transform(self.texts)
        self._model.fit(features, [name for _, name in pairs])
        self._classes = [str(name) for name in self._model.classes_]
        self._vocabulary = Vocabulary.of(self.texts)

    @classmethod
    def from_csv(cls, text: str) -> LexicalJudge:
        """Trains a judge on the content of `texts.csv` (columns text and label).

        Raises:
            EvaluationError: a column or a value is missing, or a text is there twice with different labels;
                and what the constructor raises.
        """
        reader = csv.DictReader(io.StringIO(text.lstrip("\ufeff")))
        missing = {"text", "label"} - set(reader.fieldnames or ())
        if missing:
            raise EvaluationError(f"judge {TEXTS_FILE}: lacks the columns {', '.join(sorted(missing))}")
        labels: dict[str, str] = {}
        for number, row in enumerate(reader, start=2):
            said, label = (row["text"] or "").strip(), (row["label"] or "").strip()
            if not said or not label:
                raise EvaluationError(f"judge {TEXTS_FILE}: row {number} lacks its text or its label; add it")
            if labels.setdefault(said, label) != label:
                raise EvaluationError(
                    f"judge {TEXTS_FILE}: row {number} repeats a text with another label ({label} and"
                    f" {labels[said]}); keep one of the two"
                )
        return cls(list(labels), list(labels.values()))

    def judge(self, explanations: Sequence[str | None], space: LabelSpace) -> list[Verdict]:
        """Names the emotion of each explanation, among all that its texts have.

        Args:
            explanations: n texts.
            space: the data set's own space.

        Returns:
            n verdicts. `unreadable`: hardly any word is in the judge's own texts. `silent`: nothing to read,
            or no emotion reaches `MIN_PROBABILITY` in any sentence. `outside`: the emotion has no counterpart
            in the space.
        """
        to_space = self._mafw.to(space)
        pieces = [split_sentences(text or "", semantics="strict") for text in explanations]
        heard = self._sentences(sorted({sentence for found in pieces for sentence in found}))
        verdicts = []
        for text, found in zip(explanations, pieces, strict=True):
            rows = [row for sentence in found if (row := heard[sentence]) is not None]
            if text is not None and self._vocabulary.unreadable(text):
                verdicts.append(UNREADABLE)
            elif not rows:
                verdicts.append(SILENT)
            else:
                verdicts.append(placed(to_space(self._classes[int(np.argmax(np.mean(rows, axis=0)))])))
        return verdicts

    def knows(self, space: LabelSpace) -> tuple[str, ...]:
        """The names of a space that stand for an emotion of its texts."""
        to_space = self._mafw.to(space)
        given = {to_space(name) for name in self._classes}
        return tuple(name for name in space.names if name in given)

    def describe(self) -> dict[str, Any]:
        """Name, architecture, digest and trained_on (number of texts)."""
        return {
            "name": self.name,
            "architecture": self.architecture,
            "digest": self.digest,
            "trained_on": len(self.texts),
        }

    def _sentences(self, sentences: Sequence[str]) -> dict[str, np.ndarray | None]:
        """Probabilities of the classes by sentence; None where no emotion stands out."""
        if not sentences:
            return {}
        features = self._vectorizer.transform(sentences).tocsr()
        scores = self._model.predict_proba(features)
        # Otherwise the intercepts would decide where no word is known, and chance where no emotion is named.
        speaking = (np.diff(features.indptr) > 0) & (scores.max(axis=1) >= MIN_PROBABILITY)
        return {
            sentence: scores[index] if speaking[index] else None for index, sentence in enumerate(sentences)
        }
