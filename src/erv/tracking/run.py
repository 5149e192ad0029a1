"""The MLflow run of a stage: updated while the stage runs, and never a reason for the stage to fail.

Everything a stage reports goes into a buffer that a background thread empties. While MLflow is down, the
buffer grows and is kept in `.erv/spool/<run>/`. It is delivered once MLflow answers again: by the same thread
or, if the stage has ended by then, by `deliver_spool`. If the spool can't be written (a full disk, say), the
stage goes on and the buffer stays in memory.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from erv.environment import Environment
from erv.files import content_digest, remove
from erv.tracking.delivery import (
    Delivery,
    Event,
    Outage,
    RunHeader,
    deliver_spool,
    write_events,
    write_header,
    write_record,
)

__all__ = ["Outage", "StageRun", "Status", "deliver_spool", "flatten", "open_run"]

logger = logging.getLogger(__name__)

Status = Literal["FINISHED", "FAILED", "KILLED"]

DATA_DOCS_TAG = "erv.validate.data_docs"  # the path of the Data Docs among a run's artifacts
_TABLES_TAG = "mlflow.loggedArtifacts"  # the artifacts that MLflow shows as tables
_TABLES = 50
PARENT_VARIABLE = "ERV_PARENT_RUN_ID"
FLOW_VARIABLES = ("ERV_FLOW_RUN_ID", "PREFECT__FLOW_RUN_ID")
_BETWEEN_CALLS_SECONDS = 0.5  # metrics of one optimiser step travel together
_SPOOL_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 10.0
# How long the end of a stage waits for MLflow without any progress, and at most with progress.
_PATIENCE_SECONDS = {"FINISHED": 20.0, "FAILED": 10.0, "KILLED": 3.0}
_LONGEST_CLOSE_SECONDS = {"FINISHED": 600.0, "FAILED": 60.0, "KILLED": 3.0}
_SILENT_CLOSE_SECONDS = 5.0


def _now() -> int:
    return int(time.time() * 1000)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings and lists as dotted names: `{"a": {"b": [1]}}` is `{"a.b.0": 1}`."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            result.update(flatten(value, f"{key}."))
        elif isinstance(value, list | tuple):
            result.update(flatten({str(i): item for i, item in enumerate(value)}, f"{key}."))
        else:
            result[key] = value
    return result


def _entry_name(name: str) -> str:
    """MLflow allows letters, digits and `_-. :/` in the names of metrics and parameters."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:250]


class StageRun:
    """Receives what a stage reports. Every method returns at once, and none raises because of MLflow.

    Without a tracking server (`environment.mlflow_uri` is None) the methods do nothing.
    """

    def __init__(self, environment: Environment, header: RunHeader) -> None:
        self._environment = environment
        self._header = header
        self._folder = environment.state / "spool" / header.key
        self._changed = threading.Condition()
        self._pending: list[Event] = []
        self._closing_until: float | None = None
        self._down_since: float | None = None
        self._failure: str | None = None
        self._spool_failed = False
        self._files = 0
        self._tables: list[dict[str, str]] = []
        self._delivery: Delivery | None = None
        self._thread: threading.Thread | None = None

    @property
    def run_id(self) -> str | None:
        """The id of the MLflow run; None without tracking, or while MLflow has not been reached yet."""
        return self._header.run_id

    @property
    def active(self) -> bool:
        """Whether a tracking server is configured."""
        return self._thread is not None

    def log_metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Appends a point to each curve; `step` is in the stage's own unit (optimiser steps, clips)."""
        numbers = {_entry_name(name): float(value) for name, value in values.items()}
        self._add({"kind": "metrics", "values": numbers, "step": step or 0})

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Logs parameters; nested ones get dotted names, secrets are masked."""
        texts = {_entry_name(n): self._environment.mask(str(v)) for n, v in flatten(values).items()}
        self._add({"kind": "params", "values": texts})

    def set_tags(self, values: Mapping[str, str]) -> None:
        """Sets tags; secrets are masked."""
        texts = {name: self._environment.mask(str(value)) for name, value in values.items()}
        self._add({"kind": "tags", "values": texts})

    def log_artifact(self, path: str | Path, folder: str = "") -> None:
        """Stores a file or a folder's files in their current state, under `folder` of the run's artifacts."""
        if not self.active:
            return
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, "nothing to store as an artifact", str(path))
        self._files += 1
        copy = self._folder / "files" / str(self._files) / path.name
        try:
            copy.parent.mkdir(parents=True)
            if path.is_dir():
                shutil.copytree(path, copy)
            else:
                shutil.copyfile(path, copy)
        except OSError as error:
            remove(copy.parent)
            self._report_spool(error)
            copy = path  # as it will be when it is sent
        self._add({"kind": "artifact", "path": str(copy), "folder": folder})

    def log_text(self, text: str, name: str) -> None:
        """Stores a text as the artifact `name`; secrets are masked."""
        self._add({"kind": "text", "text": self._environment.mask(text), "name": name})

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
            self._add(
                {"kind": "dataset", "name": name, "digest": digest, "path": str(path), "context": context}
            )

    def close(self, status: Status) -> None:
        """Ends the run: waits as long as MLflow keeps receiving, then leaves the rest in the spool.

        It waits some seconds for an answer and at most ten minutes altogether, less for a stage that failed.
        """
        if self._thread is None:
            return
        started = time.monotonic()
        with self._changed:
            self._pending.append({"kind": "end", "status": status, "time": _now()})
            self._closing_until = started + _PATIENCE_SECONDS[status]
            events = list(self._pending)
            self._changed.notify_all()
        if len(events) > 1:  # should the process be killed while it waits
            self._keep(events)
        self._wait_while_delivering(started, status)
        self._thread = None
        with self._changed:
            left = list(self._pending)
        if not left:
            shutil.rmtree(self._folder, ignore_errors=True)
            return
        reason = self._failure or (
            "MLflow can't be reached"
            if self._down_since is not None
            else f"MLflow did not receive everything within {time.monotonic() - started:.0f} s"
        )
        where = "kept in .erv/spool for the next `erv stack up`" if self._keep(left) else "lost"
        logger.warning("%s; %d events of %s are %s", reason, len(left), self._header.address, where)

    def _wait_while_delivering(self, started: float, status: Status) -> None:
        """Returns once everything is delivered, or nothing was for a while, or it takes too long."""
        last = started + _LONGEST_CLOSE_SECONDS[status]
        announced = False
        while True:
            with self._changed:
                before, now = len(self._pending), time.monotonic()
                if not before or self._failure is not None:
                    return
                patience = max(0.0, min(_PATIENCE_SECONDS[status], last - now))
                self._closing_until = now + patience
                progress = self._changed.wait_for(partial(self._moved, before), patience + 2.0)
            if not progress:
                return
            if not announced and time.monotonic() - started > _SILENT_CLOSE_SECONDS:
                announced = True
                logger.info("%s: delivering the last %d events to MLflow", self._header.address, before)

    def _moved(self, before: int) -> bool:
        return len(self._pending) < before or self._failure is not None

    def _keep(self, events: Sequence[Event]) -> bool:
        """Writes undelivered events to the spool; returns whether it could."""
        try:
            write_header(self._folder, self._header)
            write_events(self._folder, events)
        except OSError as error:
            self._report_spool(error)
            return False
        return True

    def _note(self) -> None:
        """Notes on disk that the run exists, and which is the newest of its stage."""
        try:
            write_header(self._folder, self._header)
            if self._header.run_id is not None:
                write_record(self._environment, self._header)
        except OSError as error:
            self._report_spool(error)

    def _report_spool(self, error: OSError) -> None:
        if not self._spool_failed:
            self._spool_failed = True
            logger.warning(
                "%s: %s; the stage goes on, and what MLflow has not received yet stays in memory only: "
                "free some space",
                error.filename or self._folder,
                error.strerror or error,
            )

    def _open(self) -> None:
        """Opens the run and starts the thread; an outage is only reported."""
        self._note()
        self._delivery = Delivery(self._environment)
        try:
            self._open_in_mlflow()
        except Outage as outage:
            self._report_down(outage)
        self._thread = threading.Thread(target=self._work, name="mlflow-delivery", daemon=True)
        self._thread.start()

    def _open_in_mlflow(self) -> None:
        assert self._delivery is not None
        self._header.run_id = self._delivery.open(self._header, search=self._down_since is not None)
        self._note()

    def _add(self, event: Event) -> None:
        if not self.active:
            return
        event["time"] = _now()
        with self._changed:
            self._pending.append(event)
            self._changed.notify_all()

    def _work(self) -> None:
        """The thread. An unforeseen error ends it and is named; the stage continues."""
        try:
            self._deliver_all()
        except Exception as error:
            text = self._environment.mask(" ".join(str(error).split()))[:300]
            with self._changed:
                self._failure = f"delivery to MLflow has stopped ({type(error).__name__}: {text})"
                self._changed.notify_all()
            logger.warning("%s; everything logged from now on is kept for later", self._failure)

    def _deliver_all(self) -> None:
        """Delivers in order, with growing pauses while MLflow is down."""
        pause = 1.0
        while True:
            with self._changed:
                while not self._pending and self._closing_until is None:
                    self._changed.wait()
                batch = list(self._pending)
                closing = self._closing_until
            if not batch:
                return
            try:
                self._deliver(batch)
                pause = 1.0
                self._report_up()
            except Outage as outage:
                self._report_down(outage)
                if not self._wait_and_spool(pause):
                    return
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                continue
            if closing is None:
                with self._changed:
                    self._changed.wait_for(lambda: self._closing_until is not None, _BETWEEN_CALLS_SECONDS)

    def _wait_and_spool(self, seconds: float) -> bool:
        """Waits during an outage and writes incoming events to disk; returns False when no time is left.

        A stage that ends wakes the thread for a last attempt; a new metric doesn't.
        """
        with self._changed:
            closing = self._closing_until
        until = time.monotonic() + seconds
        if closing is not None:
            until = min(until, closing)
            if until <= time.monotonic():
                return False
        written = 0
        while True:
            with self._changed:
                events = list(self._pending)
            if len(events) != written:  # outside the lock: an outage must not block the stage
                self._keep(events)
                written = len(events)
            rest = min(until - time.monotonic(), _SPOOL_SECONDS)
            if rest <= 0:
                return True
            with self._changed:
                if self._changed.wait_for(lambda: self._closing_until != closing, rest):
                    return True

    def _deliver(self, batch: list[Event]) -> None:
        assert self._delivery is not None
        if self._header.run_id is None:
            self._open_in_mlflow()
        assert self._header.run_id is not None
        for count in self._delivery.deliver(self._header.run_id, batch):
            with self._changed:
                del self._pending[:count]
                self._changed.notify_all()

    def _report_down(self, outage: Outage) -> None:
        if self._down_since is None:
            self._down_since = time.monotonic()
            text = self._environment.mask(str(outage))
            logger.warning("MLflow can't be reached; continuing and buffering what is logged: %s", text)

    def _report_up(self) -> None:
        if self._down_since is not None:
            logger.info(
                "MLflow is back after %.0f s; delivering the buffer", time.monotonic() - self._down_since
            )
            self._down_since = None


def open_run(
    environment: Environment,
    stage: str,
    address: str,
    tags: Mapping[str, str] | None = None,
    *,
    silent: bool = False,
) -> StageRun:
    """Opens the MLflow run of a stage.

    Args:
        environment: where MLflow is; without one, the returned run does nothing and one log line says so.
        stage: `grpo`.
        address: `grpo@erv`; the run's name.
        tags: additional tags.
        silent: track nothing; for all processes but the one that does.
    """
    all_tags = {"erv.stage": stage, "mlflow.source.name": f"stages/{stage}.py", "mlflow.source.type": "LOCAL"}
    all_tags.update(_git_tags(environment.workspace))
    parent = os.environ.get(PARENT_VARIABLE)
    flow = next((os.environ[name] for name in FLOW_VARIABLES if os.environ.get(name)), None)
    if parent:
        all_tags["mlflow.parentRunId"] = parent
    if flow:
        all_tags["prefect.flow_run_id"] = flow
    all_tags.update({name: environment.mask(value) for name, value in (tags or {}).items()})

    import psutil

    header = RunHeader(
        key=uuid.uuid4().hex,
        address=address,
        started=_now(),
        tags=all_tags,
        pid=os.getpid(),
        created=psutil.Process().create_time(),
    )
    run = StageRun(environment, header)
    if silent:
        return run
    if environment.mlflow_uri is None:
        logger.info("no MLflow server is configured, nothing is tracked; `erv stack up` starts one")
    else:
        run._open()
    return run


def read_record(environment: Environment, address: str) -> dict[str, Any] | None:
    """The newest run of a stage on this machine: run_id, started (ms), or None."""
    path = environment.state / "runs" / f"{address}.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # none, or damaged: the run is then not tagged
        return None
    return record if isinstance(record, dict) else None


def _git_tags(workspace: Path) -> dict[str, str]:
    """The commit, and whether the working tree differs from it beyond `dvc.lock`."""

    def git(*arguments: str) -> str | None:
        try:
            result = subprocess.run(
                ["git", "-C", str(workspace), *arguments],
                capture_output=True,
                text=True,
                timeout=20,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return result.stdout if result.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None:
        return {}
    changes = git("status", "--porcelain", "--untracked-files=no") or ""
    dirty = any(line[3:] != "dvc.lock" for line in changes.splitlines())
    commit = commit.strip()
    return {"erv.git_commit": commit, "mlflow.source.git.commit": commit, "erv.git_dirty": str(dirty).lower()}
