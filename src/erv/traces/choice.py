"""Which clips of an evaluation are written."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

KINDS = ("disagreements", "inconsistent", "wrong", "all")
DEFAULT = ("disagreements", "inconsistent")


def choose(
    rows: Sequence[Mapping[str, Any]], kinds: Collection[str] = DEFAULT, limit: int | None = None
) -> list[Mapping[str, Any]]:
    """The clips of these kinds, each once: those that split the panel most first, then by data set and clip.

    Args:
        rows: rows of the predictions table.
        kinds: some of `disagreements` (two judges say different things), `inconsistent` (the answer is right
            and the first judge hears another emotion in the explanation, as the metric of this name counts),
            `wrong` (the answer is not the truth) and `all`.
        limit: at most so many.
    """
    from erv.evaluate.judges.panel import (
        disagreements,
    )  # here, as the help of the command needs only the kinds
    from erv.evaluate.outcomes import explanation_terms, in_order

    ordered = in_order(rows)
    contradict = explanation_terms(ordered)["inconsistency"].over
    readings = {(item["dataset"], item["clip_id"]): item["readings"] for item in disagreements(ordered)}
    chosen = []
    for row, contradicts in zip(ordered, contradict, strict=True):
        apart = readings.get((row["dataset"], row["clip_id"]), 1)
        of_kind = {
            "disagreements": apart > 1,
            "inconsistent": bool(contradicts),
            "wrong": row["predicted"] != row["label"],
            "all": True,
        }
        if any(of_kind[kind] for kind in kinds):
            chosen.append((apart, row))
    chosen.sort(key=lambda item: -item[0])
    return [row for _, row in chosen[:limit]]
