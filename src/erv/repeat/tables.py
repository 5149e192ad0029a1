"""The finished repeats in tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from erv.errors import EvaluationError
from erv.evaluate.by_judge import is_worthy, worth_of_judges
from erv.evaluate.compare import compare, format_table, in_reading, metrics_table
from erv.evaluate.judges.panel import MAJORITY
from erv.evaluate.metrics import JUDGED
from erv.evaluate.spread import NOT_APPLICABLE, difference_rows, policy_rows, summarize
from erv.repeat.experiments import (
    evaluations_of,
    finished,
    predictions_of,
    read_comparison,
    read_parameters,
)
from erv.repeat.folds import least_worth
from erv.repeat.folds import pooled as pool
from erv.repeat.parameters import differing, digest, of_workspace
from erv.repeat.plan import Repeat

CANDIDATE = "register.policy"  # the policy that the differences are about
SHOWN_NONE = ", which hasn't shown its worth in every fold"


def tables(
    workspace: Path,
    seeds: Sequence[int] | None = None,
    folds: Sequence[int] | None = None,
    scope: str = "overall",
    *,
    pooled: bool = False,
) -> list[str]:
    """Mean, spread and clear differences of the finished repeats of this commit, as Markdown.

    Only runs with the parameters that the workspace has now count, but for seed and fold; at the end the
    others are named, with a parameter that differs. Differences are those of `register.policy`.

    Args:
        workspace: root of the repository.
        seeds: only these; None for all.
        folds: only these; None for all.
        scope: `overall` or a data set.
        pooled: also pool the clips of all five folds, for each seed.

    Raises:
        EvaluationError: none is finished with the parameters of the workspace, or one can't be read, ran with
            other parameters or has no such scope.
    """
    here = of_workspace(workspace)
    asked = {
        repeat: revision
        for repeat, revision in finished(workspace).items()
        if (seeds is None or repeat.seed in seeds) and (folds is None or repeat.fold in folds)
    }
    chosen = {repeat: revision for repeat, revision in asked.items() if repeat.parameters == digest(here)}
    others = {repeat: revision for repeat, revision in asked.items() if repeat not in chosen}
    left_out = [*_left_out(workspace, others, here)]
    if not chosen:
        raise EvaluationError(
            " ".join(
                [
                    "no such run of this commit is finished with the parameters of params.yaml; start with"
                    " `erv repeat run`, and see `dvc queue status`.",
                    *left_out,
                ]
            )
        )
    for repeat, revision in chosen.items():
        differs = differing(read_parameters(workspace, revision), here)
        if differs:
            raise EvaluationError(
                f"run {repeat.name!r} has other parameters than params.yaml ({differs}), so it can't be"
                " averaged with others; run `erv repeat run` again with --again"
            )
    comparisons = {repeat: read_comparison(workspace, revision) for repeat, revision in chosen.items()}
    shown = [*_spread(comparisons, scope, str(here.get(CANDIDATE)))]
    if pooled:
        shown += _pooled(workspace, chosen, comparisons, scope)
    return [*shown, *left_out]


def _left_out(workspace: Path, others: Mapping[Repeat, str], here: Mapping[str, Any]) -> Iterator[str]:
    """A sentence on the finished runs with each other set of parameters, naming one that differs."""
    for parameters in dict.fromkeys(repeat.parameters for repeat in others):
        mine = [repeat for repeat in others if repeat.parameters == parameters]
        differs = differing(read_parameters(workspace, others[mine[0]]), here)
        reason = f"other parameters: {differs}" if differs else "names of an earlier version"
        yield f"not in this table: {', '.join(repeat.name for repeat in mine)}, with {reason}"


def _spread(comparisons: dict[Repeat, dict[str, Any]], scope: str, candidate: str) -> Iterator[str]:
    summary = summarize({repeat.name: item for repeat, item in comparisons.items()}, scope)
    if candidate not in summary["order"]:
        raise EvaluationError(
            f"{CANDIDATE} is {candidate!r}, which these runs don't compare; set it to one of"
            f" {', '.join(summary['order'])}"
        )
    seeds, folds = ({getattr(repeat, name) for repeat in comparisons} for name in ("seed", "fold"))
    yield (
        f"{len(comparisons)} runs (seeds {_listed(seeds)}; folds {_listed(folds)}), {scope}: mean ± standard"
        " deviation (least to greatest), in percent"
    )
    yield format_table(policy_rows(summary))
    against = [policy for policy in summary["order"] if policy != candidate]
    rows = [difference_rows(summary, candidate, other) for other in against]
    by_judge = [
        difference_rows(summary, candidate, other, judge) for judge in summary["judges"] for other in against
    ]
    # A policy that doesn't explain has no figure in the reading of a judge.
    rows += [row for row in by_judge if any(row[metric] != NOT_APPLICABLE for metric in JUDGED)]
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
        clips = pool(by_fold)
        evaluations = [evaluations_of(workspace, revision, first["order"]) for revision in mine.values()]
        worth = least_worth([worth_of_judges(evaluation) for evaluation in evaluations])
        found = compare(
            clips,
            samples=first["bootstrap_samples"],
            confidence=first["confidence"],
            seed=seed,
            worth=worth,
            unexplained=[policy for policy, item in evaluations[0].items() if not item.get("explains", True)],
        )
        yield f"seed {seed}, the clips of all five folds pooled, {scope}: in percent, with intervals"
        yield format_table(metrics_table(found, scope))
        for judge in found.get("judges", {}):
            shown = "" if judge == MAJORITY or is_worthy((worth or {}).get(judge)) else SHOWN_NONE
            yield f"seed {seed}, the same clips in the reading of {judge}{shown}"
            rows = metrics_table(in_reading(found, judge), scope)
            yield format_table([{name: row[name] for name in ("policy", "clips", *JUDGED)} for row in rows])


def _listed(values: set[int]) -> str:
    return ", ".join(map(str, sorted(values)))
