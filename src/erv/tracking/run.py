"""The MLflow run of a stage: updated while the stage runs, and never a reason for the stage to fail.

Everything a stage reports goes into an outbox, which a background thread empties.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from erv.environment import Environment
from erv.files import content_digest
from erv.tracking.delivery import EXPERIMENT_METRICS, EXPERIMENT_TAGS, end_of_experiment
from erv.tracking.header import RunHeader
from erv.tracking.lineage_events import SILENT, Events
from erv.tracking.names import entry_name, flatten
from erv.tracking.outbox import Outbox, Status

_TABLES_TAG = "mlflow.loggedArtifacts"  # the artifacts that MLflow shows as tables
_TABLES = 50


class StageRun:
    """Receives what a stage reports. Every method returns at once, and none raises because of MLflow.

    Without a tracking server (`environment.mlflow_uri` is None) the methods do nothing.
    """

    def __init__(self, environment: Environment, header: RunHeader, events: Events = SILENT) -> None:
        self._environment = environment
        self._events = events
        self._header = header
        self._outbox = Outbox(environment, header)
        self._tables: list[dict[str, str]] = []

    @property
    def run_id(self) -> str | None:
        """The id of the MLflow run; None without tracking, or while MLflow has not been reached yet."""
        return self._header.run_id

    @property
    def tags(self) -> Mapping[str, str]:
        """The tags that it was opened with, such as the commit at that time."""
        return self._header.tags

    @property
    def active(self) -> bool:
        """Whether a tracking server is configured."""
        return self._outbox.active

    def open(self) -> None:
        """Opens the run in MLflow and starts the delivery; an outage is only reported."""
        self._events.start()
        if self._environment.mlflow_uri is not None:
            self._outbox.open()

    def log_metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Appends a point to each curve; `step` is in the stage's own unit (optimiser steps, clips)."""
        numbers = {entry_name(name): float(value) for name, value in values.items()}
        self._outbox.add({"kind": "metrics", "values": numbers, "step": step or 0})

    def log_results(self, values: Mapping[str, float]) -> None:
        """Logs the figures that a whole run is compared by, also to the experiment of DVC, if it is in one.

        A flow logs its own.
        """
        self.log_metrics(values)
        if self._header.experiment is not None:
            numbers = {entry_name(name): float(value) for name, value in values.items()}
            event = {"kind": EXPERIMENT_METRICS, "run": self._header.experiment, "values": numbers, "step": 0}
            self._outbox.add(event)

    def set_measured(self, tags: Mapping[str, str]) -> None:
        """Tells the experiment of DVC, if it is in one, what those figures were measured on and by.

        A flow tells its own run.

        Args:
            tags: from `erv.evaluate.measured`.
        """
        if self._header.experiment is not None:
            event = {"kind": EXPERIMENT_TAGS, "run": self._header.experiment, "values": dict(tags)}
            self._outbox.add(event)

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Logs parameters; nested ones get dotted names, secrets are masked."""
        texts = {entry_name(n): self._environment.mask(str(v)) for n, v in flatten(values).items()}
        self._outbox.add({"kind": "params", "values": texts})

    def set_tags(self, values: Mapping[str, str]) -> None:
        """Sets tags; secrets are masked."""
        texts = {name: self._environment.mask(str(value)) for name, value in values.items()}
        self._outbox.add({"kind": "tags", "values": texts})

    def log_artifact(self, path: str | Path, folder: str = "") -> None:
        """Stores a file or a folder's files in their current state, under `folder` of the run's artifacts."""
        if not self.active:
            return
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, "nothing to store as an artifact", str(path))
        copy = self._outbox.spool.copy(path)
        self._outbox.add({"kind": "artifact", "path": str(copy), "folder": folder})

    def log_text(self, text: str, name: str) -> None:
        """Stores a text as the artifact `name`; secrets are masked."""
        self._outbox.add({"kind": "text", "text": self._environment.mask(text), "name": name})

    def log_table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], name: str) -> None:
        """Stores a table as the artifact `<name>.json`, which MLflow shows as a table; secrets are masked."""
        table = {"columns": list(columns), "data": [list(row) for row in rows]}
        self.log_text(json.dumps(table) + "\n", f"{name}.json")
        # What MLflow itself records for a table; as many of the last ones as fit into a tag.
        self._tables = [*self._tables, {"path": f"{name}.json", "type": "table"}][-_TABLES:]
        self.set_tags({_TABLES_TAG: json.dumps(self._tables)})

    def log_dataset(self, name: str, path: str | Path, context: str) -> None:
        """Logs an input with DVC's hash of its content as the digest.

        Args:
            name: a readable name, `mafw`.
            path: the file or folder, as in `dvc.yaml`.
            context: its use: `source`, `training`, `validation`, `evaluation`.

        Raises:
            DataError: there is nothing at `path`.
        """
        if self.active:
            digest = content_digest(path)
            self._outbox.add(
                {"kind": "dataset", "name": name, "digest": digest, "path": str(path), "context": context}
            )

    def close(self, status: Status, message: str = "") -> None:
        """Ends the run: waits as long as MLflow keeps receiving, then leaves the rest in the spool.

        It waits some seconds for an answer and at most ten minutes altogether, less for a stage that failed.

        Args:
            status: how it ended.
            message: what failed, for OpenLineage.
        """
        if self._header.experiment is not None:
            self._outbox.add(end_of_experiment(self._header.experiment, status))
        self._outbox.close(status)
        self._events.end(status, message)
