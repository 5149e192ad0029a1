"""Whether an explanation speaks of its answer, by the verifier.

The answer is read as evaluation reads it, in the label space of a data set. Where that is a compound of
several emotions, a sentence agrees if it speaks of one of them, as the metric EPC_any has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from erv.labels import LabelSpace
from erv.rewards.answers import verifier_name
from erv.rewards.explanation import NO_SHAPING, assess

if TYPE_CHECKING:
    from erv.verifier.protocol import Verifier


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
    found = (_columns(answer or "", space, verifier.labels) for space in spaces)
    columns = next((item for item in found if item), None)
    if columns is None:
        return None
    (read,) = assess(verifier, [completion], [""], shaping=NO_SHAPING)
    counted = [said for said in read.sentences if any(said.counts_for(name) for name in columns)]
    agreeing = sum(any(said.speaks_of(name) for name in columns) for said in counted)
    return agreeing / len(counted) if counted else 0.0


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
