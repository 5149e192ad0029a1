"""A judge that nobody trained on emotions: the nearest sentence like "The person feels afraid."

It reads sentence by sentence with a pretrained encoder. Its constants were chosen on the texts in
`data/judge_texts/choosing.csv`, never on those that its worth is measured on; docs/judges.md has the figures.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from erv.errors import DataError
from erv.evaluate.judges.encoder import SentenceEncoder
from erv.evaluate.judges.independence import tensor_digests
from erv.evaluate.judges.protocol import SILENT, SPACE, UNREADABLE, Verdict, placed
from erv.labels import LabelSpace
from erv.sentences import foreign_script, split_sentences

SAYINGS = ("The person feels {}.", "The person seems {}.", "The person looks {}.")
MIN_SIMILARITY = 0.3  # of a sentence to the nearest emotion; what is said of camera and clothes stays below
SHARPNESS = 20.0  # of the softmax that turns a sentence's similarities into shares
MIN_LEAD = 0.05  # of the first emotion over the second, in mean shares; less is no emotion that stands out
BROKEN_SHARE = 0.4  # of the words, from which on a text in which no emotion stands out is another language

_WORD = re.compile(r"[^\W\d_]+")


class EmbeddingJudge:
    """The emotion whose prototype is nearest, over the sentences of an explanation.

    The prototype of an emotion is the mean vector of `SAYINGS` with its name and synonyms in the label space.
    So the judge knows every emotion of every space, and needs no texts of its own.

    Attributes:
        name: as given.
        texts: none.
        weights: digests of the encoder's tensors.

    Args:
        encoder: encodes sentences.
        name: its name in tables.
    """

    architecture = "pretrained sentence encoder, nearest emotion by name and synonyms, sentence by sentence"
    texts: tuple[str, ...] = ()

    def __init__(self, encoder: SentenceEncoder, name: str = "embedding") -> None:
        self.name = name
        self._encoder = encoder
        self._prototypes: dict[tuple[str, int], tuple[tuple[str | None, ...], np.ndarray]] = {}

    @functools.cached_property
    def weights(self) -> frozenset[str]:
        """Digests of the encoder's tensors."""
        return tensor_digests(self._encoder.tensors())

    def judge(self, explanations: Sequence[str | None], space: LabelSpace) -> list[Verdict]:
        """Names the emotion of each explanation, among those of the space and of MAFW.

        Args:
            explanations: n texts.
            space: the data set's own space.

        Returns:
            n verdicts. `silent`: nothing to read, no sentence near any emotion, or two emotions equally near
            of which it can't mean both.
            `unreadable`: another language, see `BROKEN_SHARE`. `outside`: an emotion of MAFW that the space
            has no name for, nor maps one to.
        """
        names, prototypes = self._emotions(space)
        parts = [None if name is None else space.parts_of(name) for name in names]
        rivals = np.array([[_rivals(one, other) for other in parts] for one in parts])
        return [self._verdict(text or "", names, prototypes, rivals) for text in explanations]

    def knows(self, space: LabelSpace) -> tuple[str, ...]:
        """All names of the space."""
        return space.names

    def describe(self) -> dict[str, Any]:
        """Name, architecture and digest."""
        constants = [SAYINGS, MIN_SIMILARITY, SHARPNESS, MIN_LEAD, BROKEN_SHARE]
        parts = json.dumps([self.name, self.architecture, constants, self._encoder.digest])
        return {
            "name": self.name,
            "architecture": self.architecture,
            "digest": hashlib.sha256(parts.encode()).hexdigest(),
        }

    def _verdict(
        self, text: str, names: Sequence[str | None], prototypes: np.ndarray, rivals: np.ndarray
    ) -> Verdict:
        if foreign_script(text):
            return UNREADABLE
        shares = self._shares(split_sentences(text, semantics="strict"), prototypes)
        if not len(shares):
            broken = self._encoder.broken_share(_WORD.findall(text))
            return UNREADABLE if broken >= BROKEN_SHARE else SILENT
        mean = shares.mean(axis=0)
        best = int(mean.argmax())
        lead = mean[best] - mean[rivals[best]].max(initial=0.0)
        return placed(names[best]) if lead >= MIN_LEAD else SILENT

    def _shares(self, sentences: Sequence[str], prototypes: np.ndarray) -> np.ndarray:
        """Shares of the emotions, [sentences that speak of one, emotions]."""
        if not sentences:
            return np.empty((0, len(prototypes)))
        similarity = self._encoder.encode(sentences) @ prototypes.T
        similarity = similarity[similarity.max(axis=1) >= MIN_SIMILARITY]
        shares = np.exp(SHARPNESS * (similarity - similarity.max(axis=1, keepdims=True)))
        return np.asarray(shares / shares.sum(axis=1, keepdims=True), dtype=float)

    def _emotions(self, space: LabelSpace) -> tuple[tuple[str | None, ...], np.ndarray]:
        """The emotions it tells apart: their names in the space, None if outside, and their prototypes."""
        key = (space.name, space.version)
        if key not in self._prototypes:
            mafw = LabelSpace.load(SPACE)
            words = {name: space.words_of(name) for name in space.names}
            named = {mafw.normalize(word) for found in words.values() for word in found}
            named |= _mapped(space, mafw)  # the same emotion under another name is no rival
            emotions = list(words.items())
            outside = [mafw.words_of(name) for name in mafw.names if name not in named]
            vectors = [self._prototype(found) for found in [*words.values(), *outside]]
            self._prototypes[key] = (
                (*(name for name, _ in emotions), *[None] * len(outside)),
                np.stack(vectors),
            )
        return self._prototypes[key]

    def _prototype(self, words: Sequence[str]) -> np.ndarray:
        mean = self._encoder.encode([saying.format(word) for word in words for saying in SAYINGS]).mean(
            axis=0
        )
        return np.asarray(mean / np.linalg.norm(mean))


def _rivals(one: frozenset[str] | None, other: frozenset[str] | None) -> bool:
    """Whether a text can't mean both emotions: not two outside the space, nor a compound and a part of it."""
    if one is None or other is None:
        return one is not other
    return not one & other


def _mapped(space: LabelSpace, mafw: LabelSpace) -> set[str | None]:
    """The emotions of MAFW that a space has a name for; none without a map."""
    try:
        return set(map(space.to(mafw), space.names))
    except DataError:
        return set()
