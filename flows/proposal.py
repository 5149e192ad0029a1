"""The best trial of a sweep goes the way of any candidate: evaluated, registered, its gates decided.

It is the train flow in a checkout with its parameters, so what the trial made is taken from DVC's cache.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import suppress

from prefect.logging import get_run_logger

from erv.environment import Environment
from erv.errors import ExitCode
from erv.files import write_text
from erv.pipeline import StageCancelledError
from erv.sweep.begin import Begun
from erv.sweep.errors import SweepError
from erv.sweep.study import Study
from erv.sweep.tracked import SweepRun, trial_run
from erv.tracking.lock_entries import server_of
from flows.cancellation import Cancellation
from flows.one_trial import Trials
from flows.sweep_shown import Outcome

_PROPOSED = "proposed"  # the file in the sweep's folder that says which trial was
VERSION_TAG = "erv.model_version"


def propose_best(
    environment: Environment,
    begun: Begun,
    run: SweepRun,
    outcome: Outcome,
    workers: int,
    cancellation: Cancellation,
) -> Outcome:
    """Proposes the best trial, unless that was done.

    Raises:
        StageCancelledError: the sweep was cancelled.
        SweepError: the pipeline failed with its parameters.
    """
    note, best = begun.folder.path / _PROPOSED, outcome.best
    if note.is_file() and note.read_text(encoding="utf-8").split("\n")[0] == str(best.number):
        return outcome.with_proposal(note.read_text(encoding="utf-8").splitlines()[1:])
    get_run_logger().info("proposing trial %d: %s", best.number, " ".join(best.overrides))
    overrides = (*begun.plan.overrides, *best.overrides)
    folder = begun.folder.checkout(begun.plan, ("proposal", *best.overrides), overrides)
    trials = Trials(
        environment, begun, Study(begun.folder.path, begun.plan), run.run_id, workers, cancellation.asked
    )
    attempt = uuid.uuid4().hex
    command = ["flows.run", "--workers", str(max(2, workers))]
    code, said = int(ExitCode.CANCELLED), ""
    with suppress(StageCancelledError):  # said below, with what to do
        trials.fetch(folder)
        code, said = trials.start(folder, best.number, attempt, command, cancellation.asked)
    if cancellation.asked():
        raise StageCancelledError(f"cancelled; `erv sweep run {begun.plan.name}` goes on with it")
    if code != ExitCode.DONE:
        raise SweepError(
            f"sweep {begun.plan.name!r}: its best trial {best.number} can't be proposed: {said}; see"
            f" {begun.folder.log(best.number)}, and `erv sweep run {begun.plan.name}` tries again"
        )
    lines = [*_registered(environment, attempt)]
    write_text("\n".join([str(best.number), *lines]) + "\n", note)
    begun.folder.discard(folder)
    return outcome.with_proposal(lines)


def _registered(environment: Environment, attempt: str) -> Iterator[str]:
    """Which version it became."""
    try:
        found = trial_run(environment, attempt)
        tags = server_of(environment).get_run(found).data.tags if found else {}
    except OSError as error:
        yield f"it was proposed, but MLflow can't say now as which version: {error}"
        return
    name, _, version = tags.get(VERSION_TAG, "").partition("/")
    yield (
        f"proposed as {name} version {version}"
        if version
        else "proposed; MLflow doesn't say as which version"
    )
