"""Figures of five folds: pooled over the clips of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from erv.errors import EvaluationError

FOLDS = (1, 2, 3, 4, 5)


def pooled(
    by_fold: Mapping[int, Mapping[str, Sequence[Mapping[str, Any]]]],
) -> dict[str, list[Mapping[str, Any]]]:
    """The predictions of all folds together; each clip is in the test split of one.

    Args:
        by_fold: fold -> policy -> rows of the predictions table.

    Returns:
        Rows by policy.

    Raises:
        EvaluationError: a fold is missing, or two folds tested the same clip.
    """
    lacking = [fold for fold in FOLDS if fold not in by_fold]
    if lacking:
        raise EvaluationError(
            f"fold {', '.join(map(str, lacking))} is missing, and pooled figures need all five;"
            " run `erv repeat run` with --folds 1-5"
        )
    found: dict[str, list[Mapping[str, Any]]] = {}
    seen: dict[tuple[str, str, str], int] = {}
    for fold in FOLDS:
        for policy, rows in by_fold[fold].items():
            for row in rows:
                key = (policy, row["dataset"], row["clip_id"])
                if key in seen:
                    raise EvaluationError(
                        f"clip {row['clip_id']!r} of {row['dataset']} is in the test splits of folds"
                        f" {seen[key]} and {fold}, so it would count twice; only data sets with official"
                        " folds can be pooled (set roles.test)"
                    )
                seen[key] = fold
                found.setdefault(policy, []).append(row)
    return found


def least_worth(by_fold: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """The worth of each judge in the fold in which it is the worst, since a judge may be trained per fold.

    Args:
        by_fold: worth by judge, from `erv.evaluate.by_judge.worth_of_judges`.

    Returns:
        None if a fold knows no panel.

    Raises:
        EvaluationError: the folds were read by different judges.
    """
    known = [worth for worth in by_fold if worth is not None]
    if not known or len(known) < len(by_fold):
        return None
    for worth in known:
        if list(worth) != list(known[0]):
            raise EvaluationError(
                f"the folds were read by different judges ({', '.join(known[0])}; {', '.join(worth)});"
                " run `erv repeat run` again with --again"
            )
    return {
        judge: min((worth[judge] for worth in known), key=lambda item: (item or {}).get("recall_low") or 0.0)
        for judge in known[0]
    }
