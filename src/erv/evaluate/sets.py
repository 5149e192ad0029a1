"""Metrics of clips with several emotions at once: compound labels, and answers in any words.

An answer is read as a set of emotions: `anger and disgust`, `anger, bored`. Words go through the label space
and its synonyms, so that `furious` is anger (`LabelSpace.named_set`). A word that the space doesn't know
stays as it is: it is in no truth then, so it costs precision instead of vanishing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from erv.evaluate.outcomes import Term
from erv.labels import LabelSpace
from erv.prompts import parse_completion

# What `set_metrics` returns, as the metrics of a data set are named.
SET_METRICS = ("set_any", "set_precision", "set_recall", "set_f1", "set_jaccard")
EXPLANATION_SETS = ("EEA_any", "EPC_any")


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
    columns = _overlaps(truth, named)
    return {
        name.removeprefix("set_"): sum(column) / len(truth) if truth else 0.0
        for name, column in zip(SET_METRICS, columns, strict=True)
    }


def answer_set_terms(rows: Sequence[Mapping[str, Any]], space: LabelSpace) -> dict[str, Term]:
    """What each clip adds to the set metrics of answers; nothing unless labels stand for several emotions.

    Args:
        rows: rows of the predictions table, of one data set.
        space: its label space.
    """
    if not space.has_compounds:
        return {}
    said = [space.named_set(parse_completion(row["completion"]).answer) for row in rows]
    columns = _overlaps(_truths(rows, space), said)
    return {name: _term(column) for name, column in zip(SET_METRICS, columns, strict=True)}


def explanation_set_terms(rows: Sequence[Mapping[str, Any]], space: LabelSpace) -> dict[str, Term]:
    """The same for what the judge of `judged` decides: the explanation names one of the true emotions
    (`EEA_any`), or one of those that are answered (`EPC_any`).
    """
    if not space.has_compounds:
        return {}
    heard = [space.parts_of(row["judged"]) if row["judged"] else frozenset() for row in rows]
    said = [space.named_set(parse_completion(row["completion"]).answer) for row in rows]
    return {
        name: _term([float(not named.isdisjoint(others)) for named, others in zip(heard, sets, strict=True)])
        for name, sets in zip(EXPLANATION_SETS, (_truths(rows, space), said), strict=True)
    }


def compound_figures(rows: Sequence[Mapping[str, Any]], space: LabelSpace) -> dict[str, float]:
    """The values of both kinds of terms, by name; none for a data set of single emotions."""
    terms = answer_set_terms(rows, space) | explanation_set_terms(rows, space)
    return {name: round(term.value or 0.0, 6) for name, term in terms.items()}


def _truths(rows: Sequence[Mapping[str, Any]], space: LabelSpace) -> list[frozenset[str]]:
    return [space.parts_of(row["label"]) for row in rows]


def _overlaps(
    truth: Sequence[frozenset[str]], named: Sequence[frozenset[str]]
) -> tuple[list[float], list[float], list[float], list[float], list[float]]:
    """Each of `SET_METRICS`, clip by clip."""
    both = [len(true & said) for true, said in zip(truth, named, strict=True)]
    sizes = [(len(true), len(said)) for true, said in zip(truth, named, strict=True)]
    return (
        [float(shared > 0) for shared in both],
        [shared / said if said else 0.0 for shared, (_, said) in zip(both, sizes, strict=True)],
        [shared / true for shared, (true, _) in zip(both, sizes, strict=True)],
        [2 * shared / (true + said) for shared, (true, said) in zip(both, sizes, strict=True)],
        [shared / (true + said - shared) for shared, (true, said) in zip(both, sizes, strict=True)],
    )


def _term(values: Sequence[float]) -> Term:
    return Term(np.asarray(values, dtype=np.float32))
