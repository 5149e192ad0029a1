"""How far the judges of a panel agree on the same explanations."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from erv.evaluate.judges.panel import judges_of
from erv.labels import LabelSpace

_DIGITS = 6


def agreement(rows: Sequence[Mapping[str, Any]], space: LabelSpace) -> dict[str, Any]:
    """How far each pair of judges agrees, and all of them together.

    An explanation in which a judge named no emotion is missing for it: it neither agrees nor disagrees.

    Args:
        rows: rows of the predictions table. An emotion without a name in `space` agrees only with the same
            one.
        space: of the rows.

    Returns:
        `alpha`: Krippendorff's, for nominal values (Hayes and Krippendorff, 2007); None if no two judges
        named an emotion of the same explanation, or all of them always named the same one, so that chance
        explains all. `pairs`: for each pair of judges their names (`judges`), the number of explanations in
        which `both` named an emotion, the share of those with the same one (`same`; None if there are none)
        and Cohen's `kappa` (None as alpha is). Rounded to 6 digits.
    """
    names = judges_of(rows)
    readings = {name: [row["verdicts"][i]["emotion"] for row in rows] for i, name in enumerate(names)}
    pairs = []
    for first, second in itertools.combinations(names, 2):
        both = [
            (a, b)
            for a, b in zip(readings[first], readings[second], strict=True)
            if a is not None and b is not None
        ]
        pairs.append(
            {
                "judges": [first, second],
                "both": len(both),
                "same": round(sum(a == b for a, b in both) / len(both), _DIGITS) if both else None,
                "kappa": _kappa(both),
            }
        )
    return {"alpha": _alpha([readings[name] for name in names], space), "pairs": pairs}


def _alpha(readings: Sequence[Sequence[str | None]], space: LabelSpace) -> float | None:
    import krippendorff
    import numpy as np

    apart = sorted({name for row in readings for name in row if name} - set(space.names))
    codes = {name: float(index) for index, name in enumerate([*space.names, *apart])}
    matrix = np.array([[codes.get(name or "", np.nan) for name in row] for row in readings], dtype=float)
    if not matrix.size:
        return None
    paired = matrix[:, (~np.isnan(matrix)).sum(axis=0) >= 2]
    if len(np.unique(paired[~np.isnan(paired)])) < 2:
        return None
    return round(float(krippendorff.alpha(matrix, level_of_measurement="nominal")), _DIGITS)


def _kappa(both: Sequence[tuple[str, str]]) -> float | None:
    from sklearn.metrics import cohen_kappa_score

    if len({name for pair in both for name in pair}) < 2:
        return None
    first, second = zip(*both, strict=True)
    return round(float(cohen_kappa_score(first, second)), _DIGITS)
