"""In which label space an answer is read, and how else its labels may be written as answers."""

from __future__ import annotations

import re
from collections.abc import Iterable

from erv.labels import LabelSpace


def space_of(answer: str, spaces: Iterable[str]) -> LabelSpace:
    """The space in which an answer is read.

    Args:
        answer: as the policy wrote it.
        spaces: at least one, as `LabelSpace.load` takes them.

    Returns:
        The first in which it is the name of a label; otherwise the first that knows it by another word, as
        DFEW's knows MAFW's `sadness`; otherwise the first.
    """
    known = [LabelSpace.load(space) for space in spaces]
    read = [(space, name) for space in known if (name := space.normalize(answer)) is not None]
    named = [space for space, name in read if _letters(name) == _letters(answer)]
    return next(iter([*named, *(space for space, _ in read), *known]))


def spellings(space: LabelSpace, answer: str) -> dict[str, tuple[str, ...]]:
    """What is an answer of each label, in the capitals in which a policy wrote one.

    Args:
        space: of the labels.
        answer: as the policy wrote it, without white space around it.

    Returns:
        Per label its name and its other words, each once; the answer itself is among those of its label, also
        where the space accepts it for its punctuation or as a list. One that the space doesn't know comes
        last, as a label of its own: without it, the others would seem to be what the policy is sure of.
    """
    own = space.normalize(answer)
    found = {}
    for name in space.names:
        written = [answer] if name == own else []
        written += [_in_capitals_of(answer, word) for word in (name, *space.words_of(name))]
        found[name] = tuple(dict.fromkeys(written))
    return found if own is not None else {**found, answer: (answer,)}


def _letters(text: str) -> str:
    return " ".join(re.findall(r"\w+", text)).lower()


def _in_capitals_of(answer: str, word: str) -> str:
    if len(answer) > 1 and answer.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if answer[:1].isupper() else word
