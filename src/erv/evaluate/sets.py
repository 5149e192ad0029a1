"""Metrics of clips with several emotions at once: compound labels, and answers in any words.

An answer is read as a set of emotions: `anger and disgust`, `anger, bored`. Words go through the label space
and its synonyms, so that `furious` is anger (`LabelSpace.named_set`). A word that the space doesn't know
stays as it is: it is in no truth then, so it costs precision instead of vanishing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from erv.labels import LabelSpace
from erv.prompts import parse_completion


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
    if not space.has_compounds:
        return {}
    truth = [space.parts_of(row["label"]) for row in rows]
    said = [space.named_set(parse_completion(row["completion"]).answer) for row in rows]
    heard = [space.parts_of(row["judged"]) if row["judged"] else frozenset() for row in rows]
    found = {f"set_{name}": value for name, value in set_metrics(truth, said).items()}
    found["EEA_any"] = set_metrics(truth, heard)["any"]
    return {name: round(value, 6) for name, value in found.items()}
