"""What the verifier and the judges read in each sentence of the explanations, which gives it its colour."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from erv.evaluate.judges.protocol import Judge
from erv.labels import LabelSpace
from erv.prompts import parse_completion
from erv.sentences import split_sentences
from erv.verifier.protocol import Verifier, sentence_labels, thresholds_of, unreadable_by

VERIFIER = "verifier"

# Names one emotion of the space per text, or None.
SentenceReader = Callable[[Sequence[str | None], LabelSpace], Sequence[str | None]]


@dataclass(frozen=True)
class Readings:
    """Emotions by sentence.

    Attributes:
        readers: who reads sentences: the verifier, then judges that can read single sentences.
        read: (data set, sentence) -> emotions by reader, at most two for the verifier, one for a judge.
    """

    readers: tuple[str, ...]
    read: Mapping[tuple[str, str], Sequence[Sequence[str]]]

    def of(self, dataset: str, sentence: str) -> list[list[str]]:
        """The emotions that each reader reads in a sentence."""
        return [list(names) for names in self.read[dataset, sentence]]


def read_sentences(
    rows: Iterable[Mapping[str, Any]], verifier: Verifier, judges: Mapping[str, SentenceReader]
) -> Readings:
    """Has the sentences of all explanations read, each distinct one once per data set.

    Args:
        rows: rows of the predictions table, of all policies.
        verifier: reads in its own labels, whatever the data set.
        judges: judge name -> reads single sentences. One that can't afford it is left out.
    """
    by_dataset: dict[str, set[str]] = {}
    for row in rows:
        by_dataset.setdefault(row["dataset"], set()).update(sentences_of(row["completion"]))
    distinct = sorted(set().union(*by_dataset.values()))
    verified = dict(zip(distinct, _verified(distinct, verifier), strict=True))
    found: dict[tuple[str, str], list[list[str]]] = {}
    for dataset, texts in sorted(by_dataset.items()):
        ordered, space = sorted(texts), LabelSpace.load(dataset)
        named = [judge(ordered, space) for judge in judges.values()] if ordered else []
        for index, text in enumerate(ordered):
            emotions = (names[index] for names in named)
            found[dataset, text] = [verified[text], *([name] if name else [] for name in emotions)]
    return Readings((VERIFIER, *judges), found)


def reader_of(judge: Judge) -> SentenceReader:
    """Has a judge read sentences as if each were an explanation."""

    def read(sentences: Sequence[str | None], space: LabelSpace) -> list[str | None]:
        return [verdict.emotion for verdict in judge.judge(sentences, space)]

    return read


def sentences_of(completion: str) -> list[str]:
    """The sentences of a completion's explanation; none if it has no explanation."""
    return split_sentences(parse_completion(completion).explanation or "", semantics="strict")


def _verified(sentences: list[str], verifier: Verifier) -> list[list[str]]:
    if not sentences:
        return []
    labels = sentence_labels(verifier.predict(sentences), verifier.labels, thresholds_of(verifier))
    foreign = unreadable_by(verifier, sentences)
    return [[] if unread else read for read, unread in zip(labels, foreign, strict=True)]
