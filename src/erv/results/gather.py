"""Gathers the results of a workspace: over commits, experiments, flows, folds, seeds and models.

A result is an evaluation as a lock entry has it. The same entry in several places is one result; it is shown
from where most of what decided it is still recorded. Where a run in MLflow is all that is left of a result,
that is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from erv.environment import Environment
from erv.errors import EvaluationError
from erv.results import kept
from erv.results.figures_of import Measured, measured, scopes_of
from erv.results.files import Files
from erv.results.kept import Kept
from erv.results.published import published
from erv.results.recorded import evaluated_models, without_lock
from erv.results.result import NOT_APPLICABLE, UNKNOWN, Result
from erv.results.runs import EVALUATION, Runs, asked_of, ran_with, record_of
from erv.results.settings_of import UNTRAINED, Origin, libraries_of, origin_of, setting_of
from erv.tracking.description import KIND_TAG
from erv.tracking.lock_entries import entry_hash
from erv.tracking.rest import Run

EVALUATE = "evaluate@"
_SHOWN = 3
_FILTERS: Mapping[str, Callable[[Result], str]] = {
    "data set": lambda result: result.dataset,
    "fold": lambda result: result.get("ingest.fold"),
    "policy": lambda result: result.policy,
}


@dataclass(frozen=True)
class Gathered:
    """All results that were found.

    Attributes:
        results: in the order of the page.
        remarks: sentences on what could not be asked or read.
    """

    results: tuple[Result, ...]
    remarks: tuple[str, ...]

    def only(
        self, datasets: Sequence[str] = (), folds: Sequence[str] = (), policies: Sequence[str] = ()
    ) -> Gathered:
        """The results of some data sets, folds and policies; an empty list names all.

        Raises:
            EvaluationError: no result has one of them, or none has them at once.
        """
        wanted = {"data set": datasets, "fold": folds, "policy": policies}
        for what, names in wanted.items():
            there = {_FILTERS[what](result) for result in self.results}
            for name in names:
                if name not in there:
                    told = (
                        f"there are results of {', '.join(sorted(there))}"
                        if there
                        else "there are no results"
                    )
                    raise EvaluationError(f"{what} {name!r}: no result is of it; {told}")
        chosen = [
            result
            for result in self.results
            if all(not names or _FILTERS[what](result) in names for what, names in wanted.items())
        ]
        if self.results and not chosen:
            *first, last = [f"{what} {' or '.join(names)}" for what, names in wanted.items() if names]
            raise EvaluationError(
                f"no result is of {', '.join(first)} and {last} at once; leave one of them out"
            )
        return replace(self, results=tuple(chosen))


@dataclass(frozen=True)
class _Evaluation:
    """A lock entry of an evaluation, and the locks that have it."""

    name: str
    entry: Mapping[str, Any]
    places: list[Kept] = field(default_factory=list)


def gather(environment: Environment, *, foreign: bool = True) -> Gathered:
    """Every result of this clone and of the MLflow server that it uses.

    Args:
        environment: where workspace, MLflow and object store are; what can't be reached is in the remarks.
        foreign: whether figures that others have published are among them, after all others.

    Raises:
        PipelineError: the `dvc.lock` of the workspace is damaged.
    """
    remarks: list[str] = []
    if environment.mlflow_uri is None:
        remarks.append("no MLflow server is configured, so how the runs ran is unknown")
    try:
        runs = Runs(environment)
    except OSError as error:
        environment = replace(environment, mlflow_uri=None)
        runs = Runs(environment)
        reason = environment.mask(" ".join(str(error).split())[:200])
        remarks.append(
            f"MLflow can't be asked ({reason}), so how the runs ran is unknown, and results of other clones"
            " are missing; run the same command again when it is back"
        )
    places = [*kept.of_workspace(environment.workspace), *kept.of_git(environment.workspace, remarks)]
    try:
        places += kept.of_runs(environment, runs.whole, remarks)
    except OSError as error:
        reason = environment.mask(" ".join(str(error).split())[:200])
        remarks.append(
            f"MLflow doesn't answer any more ({reason}), so results of other clones may be missing; run the"
            " same command again when it is back"
        )
    files = Files(environment)
    evaluations = _evaluations(places)
    locked = {digest: [*_results(digest, item, runs, files)] for digest, item in evaluations.items()}
    found = [
        *chain.from_iterable(locked.values()),
        *evaluated_models(runs, files, places),
        *without_lock(runs, files, places, locked),
    ]
    found.sort(key=lambda item: (item.dataset, item.policy, item.record.get("date", ""), item.key))
    return Gathered(
        (*found, *(published() if foreign else ())), tuple(dict.fromkeys([*remarks, *files.remarks]))
    )


def _evaluations(places: Sequence[Kept]) -> dict[str, _Evaluation]:
    """Each evaluation once, by the hash of its lock entry."""
    found: dict[str, _Evaluation] = {}
    for place in places:
        if place.run is not None and place.run.data.tags.get(KIND_TAG) == EVALUATION:
            continue  # it measured another model; those of its lock are in others, too
        for name, entry in place.lock.items():
            if name.startswith(EVALUATE):
                found.setdefault(entry_hash(entry), _Evaluation(name, entry)).places.append(place)
    return found


def _results(digest: str, item: _Evaluation, runs: Runs, files: Files) -> Iterator[Result]:
    """The results of an evaluation, one for each data set."""
    policy = item.name.removeprefix(EVALUATE)
    origins = [origin_of(place.lock, item.name, files.listing) for place in item.places]
    origin = min(origins, key=lambda one: (len(one.lost), len(one.unchecked)))
    parents = [place.run.info.run_id for place in item.places if place.run is not None]
    parents += [parent for place in item.places for parent in runs.of_experiment(place.experiment)]
    evaluated = runs.of(item.name, item.entry, parents)
    trainer = next((name for name in (f"grpo@{policy}", "sft") if name in origin.stages), None)
    trained = runs.of(trainer, origin.stages[trainer], parents) if trainer is not None else None
    figures = _figures(item, policy, evaluated, runs, files)
    record = {
        **record_of(evaluated),
        "lock entry": digest,
        "policy hash": _hash_of(item.entry, f"models/policy/{policy}"),
        "found in": _listed([place.where for place in item.places]),
    }
    for scope in scopes_of(figures):
        setting = setting_of(origin, policy, scope)
        setting |= ran_with(evaluated, trained, asked_of(setting))
        if setting.get("method") == UNTRAINED:
            setting |= dict.fromkeys(("model.trained", "processes"), "none")
            setting |= dict.fromkeys(("training.precision", "training.hardware"), NOT_APPLICABLE)
        setting |= {"judge": figures.judge, "intervals": figures.intervals}
        if setting["libraries"] == UNKNOWN and (locked := libraries_of(origin)):
            setting["libraries"] = f"{UNKNOWN} (recorded with {locked})"
        yield Result(
            policy,
            scope,
            setting,
            record,
            figures.scopes[scope],
            figures.clips.get(scope),
            (*origin.remarks(), *figures.remarks),
            complete=_is_complete(origin),
            identity=digest,
        )


def _is_complete(origin: Origin) -> bool:
    """Whether the entries of all that an evaluation came from are known, and have parameters."""
    return not origin.lost and any("params" in entry for entry in origin.stages.values())


def _figures(item: _Evaluation, policy: str, evaluated: Run | None, runs: Runs, files: Files) -> Measured:
    """From the first lock whose report or answers are still there, else what the run has."""
    params = (item.entry.get("params") or {}).get("params.yaml") or {}
    seed, found = int(params.get("seed", 0)), None
    for place in item.places:
        report = place.lock.get("report")
        parents = [] if place.run is None else [place.run.info.run_id]
        reported = runs.of("report", report, parents) if report else None
        found = measured(files, place.lock, policy, evaluated, reported, seed)
        if not found.remarks:
            return found
    assert found is not None
    return found


def _hash_of(entry: Mapping[str, Any], path: str) -> str:
    return next((str(item.get("md5")) for item in entry.get("deps") or [] if item["path"] == path), UNKNOWN)


def _listed(places: Sequence[str]) -> str:
    names = list(dict.fromkeys(places))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
