"""Metrics of clips with several emotions at once: compound labels, and answers in any words.

An answer is read as a set of emotions: `anger and disgust`, `anger, bored`. Words go through the label space
and its synonyms, so that `furious` is anger. A word that the space doesn't know stays as it is: it is in no
truth then, so it costs precision instead of vanishing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from erv.labels import LabelSpace
from erv.prompts import parse_completion

_BETWEEN = re.compile(
    r"[,;/|+&_\n]|\b(?:and|or|but|yet|with|plus|then|along with|as well as|mixed with)\b", re.IGNORECASE
)
_EDGES = " \t.:!?\"'`*()[]"


def parts_of(name: str, space: LabelSpace) -> frozenset[str]:
    """The single emotions of a canonical name: two of `anger_disgust`, one of `anger`."""
    parts = name.split("_")
    return frozenset(parts) if all(part in space.names for part in parts) else frozenset([name])


def has_compounds(space: LabelSpace) -> bool:
    """Whether some names of a space stand for several emotions."""
    return any(len(parts_of(name, space)) > 1 for name in space.names)


def named_set(text: str | None, space: LabelSpace) -> frozenset[str]:
    """The emotions that a text lists, by their names in the space; empty if it lists none."""
    if (whole := space.normalize(text)) is not None:
        return parts_of(whole, space)
    words = (word.strip(_EDGES).lower() for word in _BETWEEN.split(text or ""))
    known = (space.normalize(word) or word for word in words if word)
    return frozenset(part for name in known for part in parts_of(name, space))


def set_metrics(truth: Sequence[frozenset[str]], named: Sequence[frozenset[str]]) -> dict[str, float]:
    """How much the named sets overlap with the true ones, each a mean over n clips.

    Args:
        truth: n sets, none of them empty.
        named: n sets; an empty one has precision 0.

    Returns:
        `any` (share of clips with a true emotion among the named ones: for single answers what the released
        code calls accuracy on several labels), `precision` (of the named emotions, share that is true),
        `recall` (of the true ones, share that is named), `f1` and `jaccard`. All are 0 for n = 0.
    """
    rows = []
    for true, said in zip(truth, named, strict=True):
        both = len(true & said)
        rows.append(
            (
                float(both > 0),
                both / len(said) if said else 0.0,
                both / len(true),
                2 * both / (len(true) + len(said)),
                both / len(true | said),
            )
        )
    names = ("any", "precision", "recall", "f1", "jaccard")
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)] or [0.0] * len(names)
    return dict(zip(names, means, strict=True))


def compound_figures(rows: Sequence[Mapping[str, Any]], space: LabelSpace) -> dict[str, float]:
    """The metrics of a data set whose labels can stand for several emotions; none for another data set.

    Args:
        rows: rows of the predictions table, of one data set.
        space: its label space.

    Returns:
        The values of `set_metrics` on the answers as `set_any` and so on, and `EEA_any`: the share of clips
        whose explanation names one of the true emotions.
    """
    if not has_compounds(space):
        return {}
    truth = [parts_of(row["label"], space) for row in rows]
    said = [named_set(parse_completion(row["completion"]).answer, space) for row in rows]
    heard = [parts_of(row["judged"], space) if row["judged"] else frozenset() for row in rows]
    found = {f"set_{name}": value for name, value in set_metrics(truth, said).items()}
    found["EEA_any"] = set_metrics(truth, heard)["any"]
    return {name: round(value, 6) for name, value in found.items()}
