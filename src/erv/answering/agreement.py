"""Whether an explanation speaks of its answer, by the verifier.

The answer is read as evaluation reads it, in the label space of a data set. Where that is a compound of
several emotions, a sentence agrees if it speaks of one of them, as the metric EPC_any has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from erv.labels import LabelSpace
from erv.rewards.answers import verifier_name
from erv.rewards.explanation import NO_SHAPING, ReadSentence, assess

if TYPE_CHECKING:
    from erv.verifier.protocol import Verifier


@dataclass(frozen=True)
class SaidSentence:
    """A sentence of an explanation beside its answer.

    Attributes:
        text: the sentence.
        labels: emotions that the verifier reads in it, at most two, the most probable first.
        agrees: whether it speaks of the answer; None if it says nothing of emotions, or the verifier doesn't
            know the answer.
    """

    text: str
    labels: tuple[str, ...]
    agrees: bool | None


@dataclass(frozen=True)
class Agreement:
    """Whether an explanation speaks of its answer.

    Attributes:
        share: of the emotional sentences, those that do; see `agreement`.
        sentences: each once, in the order in which they are said first.
    """

    share: float | None
    sentences: tuple[SaidSentence, ...]


def agreement(verifier: Verifier, completion: str, answer: str | None, spaces: Iterable[str]) -> float | None:
    """The share of an explanation's emotional sentences that speak of the answer.

    Args:
        verifier: reads the sentences.
        completion: with its tags.
        answer: what is between the tags of the answer.
        spaces: label spaces in which the answer is looked up, as `LabelSpace.load` takes them; the first in
            which the verifier knows it counts.

    Returns:
        Between 0 and 1; 0 for an explanation without emotional sentences. None if the verifier knows the
        answer in none of the spaces.
    """
    return read_agreement(verifier, completion, answer, spaces).share


def read_agreement(
    verifier: Verifier, completion: str, answer: str | None, spaces: Iterable[str]
) -> Agreement:
    """As `agreement`, with what is read in each sentence."""
    found = (_columns(answer or "", space, verifier.labels) for space in spaces)
    columns = next((item for item in found if item), None) or []
    (read,) = assess(verifier, [completion], [""], shaping=NO_SHAPING)
    said = tuple(SaidSentence(one.text, one.labels, _agrees(one, columns)) for one in read.sentences)
    if not columns:
        return Agreement(None, said)
    counted = [one.agrees for one in said if one.agrees is not None]
    return Agreement(sum(counted) / len(counted) if counted else 0.0, said)


def _agrees(said: ReadSentence, columns: Sequence[str]) -> bool | None:
    if not any(said.counts_for(name) for name in columns):
        return None
    return any(said.speaks_of(name) for name in columns)


def _columns(answer: str, space: str, labels: Sequence[str]) -> list[str]:
    """The columns of the verifier for an answer: one, or that of each emotion of a compound."""
    if (whole := verifier_name(answer, space, labels)) is not None:
        return [whole]
    known = LabelSpace.load(space)
    name = known.normalize(answer)
    parts = known.parts_of(name) if name is not None else _listed(answer, known)
    columns = {verifier_name(part, space, labels) for part in parts}
    return sorted(column for column in columns if column is not None)


def _listed(answer: str, space: LabelSpace) -> frozenset[str]:
    """The emotions of a list that is no name of the space; a space of single emotions takes no lists."""
    return space.named_set(answer) if space.has_compounds else frozenset()
