"""How far several teachers agree on the same sentences."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from erv.chat import Refusal
from erv.distill.teachers.protocol import Verdict
from erv.labels import LabelSpace

_DIGITS = 6


def agreement(labels_by_teacher: Mapping[str, Sequence[Verdict]], names: Sequence[str]) -> dict[str, Any]:
    """How far each pair of teachers agrees, over the sentences that both labelled.

    Args:
        labels_by_teacher: verdicts on the same sentences in the same order, by teacher.
        names: of the labels.

    Returns:
        `{"pairs": [...]}`, each with `teachers` (their two names), `sentences` (that both labelled), `exact`
        (share of those with the same labels; None if there are none), `per_label` (Cohen's kappa of giving
        the label or not; None if both teachers say the same about every sentence, so that chance explains
        all) and `kappa` (the mean of those that are not None; None if there are none). Rounded to 6 digits.

    Raises:
        ValueError: the teachers have different numbers of verdicts.
    """
    pairs = []
    for (one, first), (other, second) in itertools.combinations(labels_by_teacher.items(), 2):
        both = [
            (set(a), set(b))
            for a, b in zip(first, second, strict=True)
            if isinstance(a, tuple) and isinstance(b, tuple)
        ]
        per_label = {
            name: _kappa([name in a for a, _ in both], [name in b for _, b in both]) for name in names
        }
        defined = [value for value in per_label.values() if value is not None]
        pairs.append(
            {
                "teachers": [one, other],
                "sentences": len(both),
                "kappa": round(sum(defined) / len(defined), _DIGITS) if defined else None,
                "per_label": {
                    name: None if value is None else round(value, _DIGITS)
                    for name, value in per_label.items()
                },
                "exact": round(sum(a == b for a, b in both) / len(both), _DIGITS) if both else None,
            }
        )
    return {"pairs": pairs}


def majority(verdicts: Sequence[Verdict], names: Sequence[str] | None = None) -> Verdict:
    """The majority's verdict on one sentence.

    Args:
        verdicts: one per teacher.
        names: the labels in their order; those of the MAFW space if omitted.

    Returns:
        The labels that more than half of ALL teachers name, in the order of `names`; a refusal names none. If
        there are none, a refusal "disagreement" that lists what each said. Neutral can't end up beside
        another label: if two labels are each named by more than half, some teacher names both, and no valid
        verdict has neutral beside another label.
    """
    names = LabelSpace.load("mafw").names if names is None else names
    said = Counter(label for verdict in verdicts if isinstance(verdict, tuple) for label in set(verdict))
    chosen = tuple(name for name in names if 2 * said[name] > len(verdicts))
    return chosen or Refusal("disagreement", "; ".join(map(_spoken, verdicts)))


def _kappa(first: Sequence[bool], second: Sequence[bool]) -> float | None:
    from sklearn.metrics import cohen_kappa_score

    if len({*first, *second}) < 2:
        return None
    return float(cohen_kappa_score(first, second, labels=[False, True]))


def _spoken(verdict: Verdict) -> str:
    return ", ".join(verdict) if isinstance(verdict, tuple) else f"({verdict.reason})"
