"""The finished repeats in tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from erv.errors import EvaluationError
from erv.evaluate.compare import compare, format_table, metrics_table
from erv.evaluate.spread import difference_rows, policy_rows, summarize
from erv.repeat.experiments import finished, predictions_of, read_comparison
from erv.repeat.folds import pooled as pool
from erv.repeat.plan import Repeat


def tables(
    workspace: Path,
    seeds: Sequence[int] | None = None,
    folds: Sequence[int] | None = None,
    scope: str = "overall",
    *,
    pooled: bool = False,
) -> list[str]:
    """Mean, spread and clear differences of the finished repeats of this commit, as Markdown.

    Args:
        workspace: root of the repository.
        seeds: only these; None for all.
        folds: only these; None for all.
        scope: `overall` or a data set.
        pooled: also pool the clips of all five folds, for each seed.

    Raises:
        EvaluationError: none is finished, or one can't be read or has no such scope.
    """
    chosen = {
        repeat: revision
        for repeat, revision in finished(workspace).items()
        if (seeds is None or repeat.seed in seeds) and (folds is None or repeat.fold in folds)
    }
    if not chosen:
        raise EvaluationError(
            "no such run of this commit is finished; start with `erv repeat run`, and see `dvc queue status`"
        )
    comparisons = {repeat: read_comparison(workspace, revision) for repeat, revision in chosen.items()}
    shown = [*_spread(comparisons, scope)]
    if pooled:
        shown += _pooled(workspace, chosen, comparisons, scope)
    return shown


def _spread(comparisons: dict[Repeat, dict[str, Any]], scope: str) -> Iterator[str]:
    summary = summarize({repeat.name: item for repeat, item in comparisons.items()}, scope)
    seeds, folds = ({getattr(repeat, name) for repeat in comparisons} for name in ("seed", "fold"))
    yield (
        f"{len(comparisons)} runs (seeds {_listed(seeds)}; folds {_listed(folds)}), {scope}: mean ± standard"
        " deviation (least to greatest), in percent"
    )
    yield format_table(policy_rows(summary))
    *earlier, last = summary["order"]
    rows = [difference_rows(summary, last, against) for against in earlier]
    rows += [
        difference_rows(summary, last, against, judge) for judge in summary["judges"] for against in earlier
    ]
    if rows:
        columns = dict.fromkeys(name for row in rows for name in row)
        yield "differences in percentage points, and in how many runs the interval is on one side of zero"
        yield format_table([{name: row.get(name, "") for name in columns} for row in rows])


def _pooled(
    workspace: Path, chosen: dict[Repeat, str], comparisons: dict[Repeat, dict[str, Any]], scope: str
) -> Iterator[str]:
    for seed in dict.fromkeys(repeat.seed for repeat in chosen):
        mine = {repeat: revision for repeat, revision in chosen.items() if repeat.seed == seed}
        first = comparisons[next(iter(mine))]
        by_fold = {
            repeat.fold: predictions_of(workspace, revision, first["order"])
            for repeat, revision in mine.items()
        }
        found = compare(
            pool(by_fold),
            samples=first["bootstrap_samples"],
            confidence=first["confidence"],
            seed=seed,
        )
        yield f"seed {seed}, the clips of all five folds pooled, {scope}: in percent, with intervals"
        yield format_table(metrics_table(found, scope))


def _listed(values: set[int]) -> str:
    return ", ".join(map(str, sorted(values)))
