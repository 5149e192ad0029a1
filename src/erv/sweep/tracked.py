"""A sweep in MLflow: its run, those of its trials, and the values that their stages report meanwhile.

An outage is no reason for a trial to fail: what could not be told is told at the end, or by the next process
that goes on with the sweep.
"""

from __future__ import annotations

import json
import logging
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from erv.environment import Environment
from erv.errors import StackError
from erv.files import write_text
from erv.sweep.plan import Plan
from erv.sweep.study import Row
from erv.tracking.delivery import Delivery, Outage
from erv.tracking.description import KIND_TAG, NOTE_TAG, SWEEP
from erv.tracking.header import RunHeader
from erv.tracking.lock_entries import PARENT_TAG, search, server_of
from erv.tracking.names import entry_name
from erv.tracking.origin import origin_tags
from erv.tracking.outbox import now_ms
from erv.tracking.rest import Metric

logger = logging.getLogger(__name__)

SWEEP_TAG, TRIAL_TAG, STATE_TAG = "erv.sweep", "erv.sweep_trial", "erv.sweep_state"
ATTEMPT_TAG = "erv.sweep_attempt"  # tells one attempt at a trial from all others
VALUE = "sweep/value"  # the metric of a trial's run by which trials are compared
SWEEP_VARIABLE, TRIAL_VARIABLE, ATTEMPT_VARIABLE = "ERV_SWEEP", "ERV_SWEEP_TRIAL", "ERV_SWEEP_ATTEMPT"
_TAGS = {SWEEP_VARIABLE: SWEEP_TAG, TRIAL_VARIABLE: TRIAL_TAG, ATTEMPT_VARIABLE: ATTEMPT_TAG}
_RUN = "mlflow_run"  # the file in the sweep's folder that names its run
_STATES = {"done": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}


def sweep_tags() -> dict[str, str]:
    """Which trial of which sweep this process works for; nothing outside of one."""
    return {tag: os.environ[name] for name, tag in _TAGS.items() if os.environ.get(name)}


class SweepRun:
    """The run of a sweep in MLflow, which contains those of its trials.

    Args:
        environment: where MLflow is.
        folder: of the sweep.
        plan: what it was begun with.
    """

    def __init__(self, environment: Environment, folder: Path, plan: Plan) -> None:
        self._environment, self._folder, self._plan = environment, folder, plan
        self.run_id = ""
        self._told: set[int] = set()

    def open(self) -> None:
        """Opens the run, or goes on with that of the sweep.

        Raises:
            StackError: MLflow can't be reached.
        """
        note = self._folder / _RUN
        known = note.read_text(encoding="utf-8").strip() if note.is_file() else ""
        try:
            if known and server_of(self._environment).find_run(known) is not None:
                server_of(self._environment).resume_run(known)
                self.run_id = known
                return
            self.run_id = Delivery(self._environment).open(self._header())
            server_of(self._environment).log_batch(self.run_id, params=self._parameters())
        except (OSError, Outage) as error:
            raise StackError(
                f"the run of sweep {self._plan.name!r} can't be opened in MLflow: {error}"
            ) from error
        write_text(self.run_id + "\n", note)

    def tell_trials(self, rows: Sequence[Row], attempts: Mapping[int, str]) -> None:
        """Writes what came of the trials into their runs and the table into this one; an outage only warns.

        Args:
            rows: of all trials.
            attempts: of those that this process ran.
        """
        try:
            for row in rows:
                if row.number in attempts and row.state in _STATES and row.number not in self._told:
                    self._tell(row, attempts[row.number])
                    self._told.add(row.number)
            found = [row for row in rows if row.state in ("done", "pruned", "failed")]
            server_of(self._environment).log_text(self.run_id, _json(found, self._plan.metric), "trials.json")
        except OSError as error:
            logger.warning("MLflow can't be told of the trials now: %s", error)

    def tell_best(self, best: Row, text: str) -> None:
        """Writes the best trial into the run; an outage only warns."""
        tags = {"erv.sweep_best": str(best.number), "erv.overrides": " ".join(best.overrides), NOTE_TAG: text}
        points = [] if best.value is None else [Metric(VALUE, best.value, now_ms(), 0)]
        try:
            server_of(self._environment).log_batch(self.run_id, points, tags=tags)
        except OSError as error:
            logger.warning("MLflow can't be told of the best trial now: %s", error)

    def close(self, status: str) -> None:
        """Ends the run: `FINISHED`, `FAILED` or `KILLED`; an outage only warns."""
        if not self.run_id:
            return
        try:
            server_of(self._environment).end_run(self.run_id, status, now_ms())
        except OSError as error:
            logger.warning("the run of the sweep can't be ended in MLflow now: %s", error)

    def _tell(self, row: Row, attempt: str) -> None:
        run_id = trial_run(self._environment, attempt)
        if run_id is None:
            return
        points = [] if row.value is None else [Metric(VALUE, row.value, now_ms(), row.step or 0)]
        tags = {STATE_TAG: _STATES[row.state]}
        server_of(self._environment).log_batch(run_id, points, tags=tags)

    def _header(self) -> RunHeader:
        tags = {
            KIND_TAG: SWEEP,
            SWEEP_TAG: self._plan.name,
            "erv.stage": "sweep",
            "mlflow.source.name": "flows/sweep.py",
            "mlflow.source.type": "LOCAL",
            **origin_tags(self._environment.workspace),
        }
        return RunHeader(
            key=uuid.uuid4().hex,
            address="sweep",
            started=now_ms(),
            tags=tags,
            name=f"sweep {self._plan.name}",
        )

    def _parameters(self) -> dict[str, str]:
        plan = self._plan
        described = {
            "stage": plan.stage,
            "metric": plan.metric,
            "direction": plan.direction,
            "seed": plan.seed,
            "sampler": plan.sampler,
            "prune": plan.prune,
            "set": " ".join(plan.overrides),
            **{f"over.{name}": text for name, text in plan.space.items()},
        }
        return {entry_name(name): str(value)[:500] for name, value in described.items()}


def trial_run(environment: Environment, attempt: str) -> str | None:
    """The run of a trial, as soon as there is one.

    Raises:
        OSError: MLflow can't be reached, or refuses.
    """
    found = search(environment, f"tags.`{ATTEMPT_TAG}` = '{attempt}'", limit=1)
    return found[0].info.run_id if found else None


def stage_run(environment: Environment, parent: str, stage: str) -> str | None:
    """The run of a stage below that of a trial, as soon as there is one.

    Raises:
        OSError: MLflow can't be reached, or refuses.
    """
    condition = f"tags.`{PARENT_TAG}` = '{parent}' and attributes.run_name = '{stage}'"
    found = search(environment, condition, limit=1)
    return found[0].info.run_id if found else None


def points(environment: Environment, run_id: str, series: str) -> dict[int, float]:
    """The values of a series by step.

    Raises:
        OSError: MLflow can't be reached, or refuses.
    """
    return {point.step: point.value for point in server_of(environment).history(run_id, entry_name(series))}


def copy_points(environment: Environment, run_id: str, metric: str, values: Mapping[int, float]) -> None:
    """Writes values by step into a run.

    Raises:
        OSError: MLflow can't be reached, or refuses.
    """
    now = now_ms()
    found = [Metric(entry_name(metric), value, now, step) for step, value in values.items()]
    server_of(environment).log_batch(run_id, found)


def _json(rows: Sequence[Row], metric: str) -> str:
    columns = ["trial", "state", metric, "parameters", "message"]
    data: list[list[Any]] = [
        [row.number, row.state, row.value, " ".join(row.overrides), row.message] for row in rows
    ]
    return json.dumps({"columns": columns, "data": data}, ensure_ascii=False) + "\n"
