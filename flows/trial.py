"""One trial of a sweep, in the checkout that `flows.sweep` has made for it: `python -m flows.trial STAGE`.

It brings one stage up to date with all that it needs, and leaves in `.erv/trial.json` which MLflow run made
the result. It stores no outputs, registers nothing, and nobody is told if it fails: the sweep does that.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow, tags
from prefect.logging import get_run_logger
from prefect.task_runners import ThreadPoolTaskRunner

from erv.errors import ErvError, ExitCode
from erv.files import write_document
from erv.sweep.tracked import SWEEP_TAG, TRIAL_TAG, sweep_tags
from erv.tracking.description import TRIAL
from flows import below_sweep, console
from flows.beginning import beginning
from flows.cancellation import Cancellation
from flows.ending import ending
from flows.graph import StageReport, is_done
from flows.parent_run import parent_run
from flows.results import link_runs
from flows.stages import bring_up_to_date, raise_for
from flows.wanted import Wanted
from flows.workspace import in_workspace

RESULT = Path(".erv") / "trial.json"
_THREADS = 96  # which mostly wait


@flow(
    name="trial",
    flow_run_name="{sweep} {number}",
    persist_result=False,
    retries=0,
    task_runner=ThreadPoolTaskRunner(max_workers=_THREADS),  # type: ignore[arg-type]
)
def trial(sweep: str, number: str, stage: str, force: bool = False, workers: int = 1) -> Any:
    """Runs a stage and what it needs for a sweep; start `sweep` rather than this.

    Args:
        sweep: its name.
        number: of the trial.
        stage: the stage that decides.
        force: run the stage even if DVC knows its result.
        workers: how many independent stages run in parallel.
    """

    def work(flow_run_id: UUID, cancellation: Cancellation) -> None:
        _run(flow_run_id, Wanted([stage], force), workers, cancellation)

    return in_workspace(work)


def _run(flow_run_id: UUID, wanted: Wanted, workers: int, cancellation: Cancellation) -> None:
    logger = get_run_logger()
    begun = beginning(wanted, cancellation)
    of = sweep_tags()
    name = f"{of.get(SWEEP_TAG, 'sweep')} · trial {of.get(TRIAL_TAG, '')}"
    with parent_run(
        begun.environment, flow_run_id, begun.described, stage="trial", kind=TRIAL, name=name
    ) as parent:
        reports = bring_up_to_date(
            begun.environment,
            begun.stages,
            begun.placement,
            begun.unchanged,
            begun.forced,
            workers,
            flow_run_id,
            parent,
            cancellation,
            sweeping=True,
        )
        runs = link_runs(begun.environment, parent, reports)
        raise_for(reports, {}, cancellation)
        write_document({"runs": runs, "outcomes": _outcomes(reports)}, RESULT)
    logger.info("%s", ", ".join(f"{name} {outcome}" for name, outcome in _outcomes(reports).items()))


def _outcomes(reports: Sequence[StageReport]) -> dict[str, str]:
    return {report.name: report.outcome for report in reports if is_done(report)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the flow in this process; returns an exit code of `erv.errors.EXIT_CODES`."""
    parser = argparse.ArgumentParser(prog="python -m flows.trial", description="Runs a trial of a sweep.")
    parser.add_argument("stage", help="the stage that decides")
    parser.add_argument("--force", action="store_true", help="run it even if DVC knows its result")
    parser.add_argument("--workers", type=int, default=1, help="stages in parallel (%(default)s)")
    options = parser.parse_args(arguments)
    RESULT.unlink(missing_ok=True)
    below_sweep.ends_in_order()
    console.leave_out_what_is_printed()
    of = sweep_tags()
    sweep, number = of.get(SWEEP_TAG, "sweep"), of.get(TRIAL_TAG, "0")
    try:
        with tags(f"erv-sweep:{sweep}"):
            state: Any = trial(
                sweep, number, options.stage, options.force, options.workers, return_state=True
            )
    except ErvError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail(console.INTERRUPTED, ExitCode.CANCELLED)
    if state.is_completed():
        return ExitCode.DONE
    return _fail(*ending(state))


def _fail(message: str, code: ExitCode) -> int:
    print(f"error: {message}", flush=True)  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main())
