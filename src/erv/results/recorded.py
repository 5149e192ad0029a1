"""Results that are recorded in MLflow alone: those of `erv evaluate`, and those whose `dvc.lock` is gone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from erv.parameters import decides
from erv.pipeline.lock_file import NAME as LOCK
from erv.register.evaluation import DIGEST_TAG, MODEL_TAG
from erv.results.figures_of import (
    NO_INTERVALS,
    Measured,
    in_comparison,
    of_values,
    read_json,
    scopes_of,
)
from erv.results.files import Files
from erv.results.kept import Kept
from erv.results.result import UNKNOWN, Result
from erv.results.runs import EVALUATION, Runs, asked_of, experiment_of, ran_with, record_of
from erv.results.settings_of import origin_of, setting_of
from erv.tracking.description import EXPERIMENT, FLOW, KIND_TAG
from erv.tracking.lock_entries import ENTRY_TAG, entry_hash, run_tag
from erv.tracking.rest import Run

_EVALUATE = "evaluate@"
_FIGURES = "figures.json"
_SAME = 1e-6  # between figures of one result, which files and servers may have rounded
_TESTING = ("evaluate", "ingest", "validate", "extract")  # the stages that decide how a given model is tested
_NO_LOCK = (
    f"its {LOCK} is kept nowhere that can be read from here, so the setting is what its run noted when it"
    " began, and the figures have no intervals"
)
_TRAINING = "how this model was trained isn't recorded with its evaluation; `erv lineage` may know"
_CLIPS = f"the {LOCK} of this evaluation is not kept, so how its clips were made is unknown"


def evaluated_models(runs: Runs, files: Files, places: Sequence[Kept]) -> Iterator[Result]:
    """The results of `erv evaluate`: any model on the test sets of a workspace.

    Args:
        runs: of MLflow.
        files: where their figures are.
        places: the locks that were found.
    """
    locks = {place.run.info.run_id: place for place in places if place.run is not None}
    for run in runs.whole:
        tags = run.data.tags
        if tags.get(KIND_TAG) != EVALUATION:
            continue
        title = tags.get(MODEL_TAG, run.info.run_name)
        comparison = read_json(files.artifact(run, _FIGURES))
        figures = in_comparison(comparison, title, files, f"{_FIGURES} of MLflow run {run.info.run_id[:8]}")
        figures = figures or Measured(*of_values(run.data.metrics), remarks=(NO_INTERVALS,))
        below = runs.evaluating(run.info.run_id)
        record = {
            **record_of(run),
            "policy hash": tags.get(DIGEST_TAG, UNKNOWN),
            "found in": f"MLflow run {run.info.run_id[:8]}",
        }
        place = locks.get(run.info.run_id)
        for scope in scopes_of(figures):
            setting = _noted(below) if place is None else _tested(place, files, scope)
            setting |= ran_with(below, None, asked_of(setting)) | {"method": f"evaluated as it is: {title}"}
            setting |= {"judge": figures.judge, "intervals": figures.intervals}
            remarks = (_TRAINING,) if place is not None else (_CLIPS, _TRAINING)
            yield Result(
                title,
                scope,
                setting,
                record,
                figures.scopes[scope],
                figures.clips.get(scope),
                (*remarks, *figures.remarks),
                complete=False,
                identity=run.info.run_id,
            )


def without_lock(
    runs: Runs, files: Files, places: Sequence[Kept], known: Mapping[str, Sequence[Result]]
) -> Iterator[Result]:
    """Results of flows and experiments of which only the MLflow runs are left.

    Args:
        runs: of MLflow.
        files: where runs are that didn't finish.
        places: the locks that were found.
        known: the results of the lock entries of evaluations in them, by the hashes of those.
    """
    with_lock = {place.run.info.run_id for place in places if place.run is not None}
    here = _of_experiments(places, known)
    seen = set(known)  # an entry that several runs have is one result
    for run in runs.whole:
        tags = run.data.tags
        kind = tags.get(KIND_TAG)
        if kind not in (FLOW, EXPERIMENT) or run.info.run_id in with_lock:
            continue
        values = run.data.metrics
        for policy in sorted({name.partition("/")[0] for name in values if name.count("/") == 2}):
            evaluated = _evaluated_in(run, policy, runs, files)
            entry = evaluated.data.tags.get(ENTRY_TAG) if evaluated is not None else None
            if entry in seen:
                continue
            if entry is not None:
                seen.add(entry)
            figures = Measured(*of_values(values, f"{policy}/"), remarks=(_NO_LOCK,))
            if kind == EXPERIMENT and _is_one_of(here.get(experiment_of(run), ()), policy, figures):
                continue
            record = {
                **record_of(evaluated or run),
                **({} if entry is None else {"lock entry": entry}),
                "found in": f"MLflow run {run.info.run_id[:8]}",
            }
            for scope in scopes_of(figures):
                setting = _noted(run)
                setting |= ran_with(evaluated, None, asked_of(setting))
                setting |= {"judge": UNKNOWN, "intervals": UNKNOWN}
                yield Result(
                    policy,
                    scope,
                    setting,
                    record,
                    figures.scopes[scope],
                    figures.clips.get(scope),
                    figures.remarks,
                    complete=False,
                    identity=entry or run.info.run_id,
                )


def _of_experiments(
    places: Sequence[Kept], known: Mapping[str, Sequence[Result]]
) -> dict[tuple[str | None, str | None], list[Result]]:
    """The results of the experiments of DVC that this clone has, by baseline and name."""
    found: dict[tuple[str | None, str | None], list[Result]] = {}
    for place in places:
        if place.experiment is not None:
            results = found.setdefault(place.experiment, [])
            for name, entry in place.lock.items():
                if name.startswith(_EVALUATE):
                    results += known.get(entry_hash(entry), ())
    return found


def _is_one_of(results: Sequence[Result], policy: str, figures: Measured) -> bool:
    """Whether figures are those of results of an experiment of the same baseline and name.

    Another clone may have one of that name: names of repeats follow from seed, fold and parameters. Then it
    measured something else.
    """
    same = [
        math.isclose(figure.value, other.value, abs_tol=_SAME)
        for result in results
        if result.policy == policy
        for name, figure in figures.scopes.get(result.dataset, {}).items()
        if (other := result.figures.get(name)) is not None
        and figure.value is not None
        and other.value is not None
    ]
    return bool(same) and all(same)  # on other data sets, they have none in common


def _evaluated_in(run: Run, policy: str, runs: Runs, files: Files) -> Run | None:
    stage = f"{_EVALUATE}{policy}"
    below = runs.below(run.info.run_id, stage)
    named = run.data.tags.get(run_tag(stage), "")
    return below or runs.stage(named) or (files.run(named) if len(named) == 32 else None)


def _tested(place: Kept, files: Files, scope: str) -> dict[str, str]:
    """How a given model was tested: as the policies of the workspace were."""
    name = next((name for name in place.lock if name.startswith(_EVALUATE)), None)
    if name is None:
        return {}
    origin = origin_of(place.lock, name, files.listing)
    tested = {stage: e for stage, e in origin.stages.items() if stage.partition("@")[0] in _TESTING}
    return setting_of(replace(origin, stages=tested), "", scope)


def _noted(run: Run | None) -> dict[str, str]:
    """The parameters that a run noted, without those that decide nothing."""
    params = run.data.params if run is not None else {}
    return {key: text for key, text in sorted(params.items()) if decides(key)}
