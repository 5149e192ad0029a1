"""Events of a run and their delivery to MLflow: at once, later, or from the spool after the process ended.

An event is a JSON object with a `kind`: `metrics`, `params`, `tags`, `artifact`, `text`, `dataset`, `end`;
and `experiment_metrics`, `experiment_tags` and `experiment_end`, which go to the run that contains this one.
Each carries the time at which it happened, so that a late delivery gives the same curves. Delivering an event
twice does no harm: MLflow ignores equal metrics and parameters, artifacts are overwritten, and a run is found
by its key.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from erv.environment import Environment
from erv.files import write_text
from erv.tracking import records
from erv.tracking.header import RunHeader
from erv.tracking.patience import FINAL
from erv.tracking.rest import RUNNING, DeletedExperiment, Metric, Refused, Rest

logger = logging.getLogger(__name__)

Event = dict[str, Any]

KEY_TAG = "erv.run_key"
EVENTS = "events.jsonl"
HEADER = "run.json"
BAD = "bad"

EXPERIMENT_METRICS, EXPERIMENT_TAGS, EXPERIMENT_END = (
    "experiment_metrics",
    "experiment_tags",
    "experiment_end",
)

_METRICS_PER_CALL = 1000
_ENTRIES_PER_CALL = 100
_LOCK_SECONDS = 60.0
_DATASET_NAME_TAG = "mlflow.data.context"


class Outage(Exception):
    """MLflow can't be reached now; the caller still has what was to be delivered."""


class Unusable(Outage):
    """MLflow can be reached, but takes no runs until someone puts right what the message names."""


def end_of_experiment(run_id: str, status: str) -> Event:
    """The event that ends the run of an experiment of DVC with one of its stages, unless it ended before.

    Args:
        run_id: of the experiment.
        status: `FINISHED`, `FAILED` or `KILLED`, as the stage.
    """
    return {"kind": EXPERIMENT_END, "run": run_id, "status": status}


class Delivery:
    """Turns events into calls to one MLflow server."""

    def __init__(self, environment: Environment) -> None:
        # No repetitions, and no waiting for minutes: the buffer of a stage does the retrying.
        self._server = Rest(environment)
        self._experiment = environment.mlflow_experiment

    def open(self, header: RunHeader, search: bool = False) -> str:
        """Opens the run of `header`; returns its id.

        Args:
            header: what the run is.
            search: an earlier attempt seemed to fail but may have got through; look for its run first.

        Raises:
            Outage: the server is down or refuses.
            Unusable: the experiment is deleted.
        """
        try:
            experiment_id = self._experiment_id()
            if search:
                found = self._server.search_runs(experiment_id, f"tags.`{KEY_TAG}` = '{header.key}'")
                if found:
                    return found[0].info.run_id
            run = self._server.create_run(
                experiment_id,
                header.started,
                {**header.tags, KEY_TAG: header.key},
                header.name or header.address,
            )
        except DeletedExperiment as error:
            raise Unusable(str(error)) from error
        except OSError as error:
            raise Outage(_first_line(error)) from error
        return run.info.run_id

    def _experiment_id(self) -> str:
        found = self._server.experiment_id(self._experiment)
        if found is not None:
            return found
        try:
            return self._server.create_experiment(self._experiment)
        except Refused as error:
            # Two stages that start side by side both find it missing: the second takes the first one's.
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = self._server.experiment_id(self._experiment)
            if found is None:
                raise
            return found

    def deliver(self, run_id: str, events: Sequence[Event]) -> Iterator[int]:
        """Delivers events in order; yields after each call how many are done, so the caller can drop them.

        An event that MLflow refuses permanently, or that can't be sent at all, is reported as a warning and
        counts as done.

        Raises:
            Outage: the server is down; events not yielded are not delivered.
        """
        position = alone_until = 0
        while position < len(events):
            group = _group(events, position) if position >= alone_until else [events[position]]
            try:
                self._send(run_id, group)
            except Refused as error:
                if error.error_code not in FINAL:
                    raise Outage(_first_line(error)) from error
                logger.warning(
                    "MLflow refuses %s of run %s: %s", group[0]["kind"], run_id, _first_line(error)
                )
            except FileNotFoundError as error:
                logger.warning("artifact for run %s is gone: %s", run_id, error.filename)
            except OSError as error:
                raise Outage(_first_line(error)) from error
            except Exception as error:
                if len(group) > 1:  # one of them is to blame: send each separately
                    alone_until = position + len(group)
                    continue
                name, text = type(error).__name__, _first_line(error)
                logger.warning("%s of run %s is left out: %s: %s", group[0]["kind"], run_id, name, text)
            position += len(group)
            yield len(group)

    def _send(self, run_id: str, group: Sequence[Event]) -> None:
        event = group[0]
        match event["kind"]:
            case "metrics":
                self._send_metrics(run_id, group)
            case "params" | "tags":
                self._send_entries(run_id, event["kind"], event["values"])
            case "artifact":
                self._server.log_artifact(run_id, Path(event["path"]), event["folder"] or "")
            case "text":
                self._server.log_text(run_id, event["text"], event["name"])
            case "dataset":
                source, tags = json.dumps({"uri": event["path"]}), {_DATASET_NAME_TAG: event["context"]}
                self._server.log_input(run_id, event["name"], event["digest"], source, tags)
            case "end":
                self._server.end_run(run_id, event["status"], event["time"])
            case "experiment_metrics":
                self._send_metrics(event["run"], group)
            case "experiment_tags":
                self._send_entries(event["run"], "tags", event["values"])
            case "experiment_end":
                # A stage that failed has ended it: with `--keep-going`, others follow.
                if self._server.get_run(event["run"]).info.status == RUNNING:
                    self._server.end_run(event["run"], event["status"], event["time"])
            case kind:
                logger.warning("unknown event %r for run %s is dropped", kind, run_id)

    def _send_metrics(self, run_id: str, group: Sequence[Event]) -> None:
        metrics = [
            Metric(name, value, event["time"], event["step"])
            for event in group
            for name, value in event["values"].items()
        ]
        for start in range(0, len(metrics), _METRICS_PER_CALL):
            self._server.log_batch(run_id, metrics=metrics[start : start + _METRICS_PER_CALL])

    def _send_entries(self, run_id: str, kind: str, values: dict[str, str]) -> None:
        entries = list(values.items())
        for start in range(0, len(entries), _ENTRIES_PER_CALL):
            some = dict(entries[start : start + _ENTRIES_PER_CALL])
            if kind == "params":
                self._server.log_batch(run_id, params=some)
            else:
                self._server.log_batch(run_id, tags=some)


def _group(events: Sequence[Event], start: int) -> Sequence[Event]:
    """The events from `start` that go into one call: a run of metrics, or a single other event.

    No more metrics than MLflow takes at once, so that each call counts as progress.
    """
    end, points = start + 1, _points(events[start])
    if events[start]["kind"] == "metrics":
        while end < len(events) and events[end]["kind"] == "metrics":
            points += _points(events[end])
            if points > _METRICS_PER_CALL:
                break
            end += 1
    return events[start:end]


def _points(event: Event) -> int:
    values = event.get("values")
    return len(values) if isinstance(values, dict) else 1


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def write_header(folder: Path, header: RunHeader) -> None:
    """Notes in the run's spool folder that the run exists, so that a killed process's run can be closed."""
    write_text(json.dumps(asdict(header), indent=1) + "\n", folder / HEADER, shared=True)


def write_events(folder: Path, events: Sequence[Event]) -> None:
    """Keeps undelivered events, one JSON object a line."""
    write_text("".join(json.dumps(event) + "\n" for event in events), folder / EVENTS, shared=True)


def waiting(environment: Environment) -> int:
    """How many runs of ended processes are not yet completed in MLflow."""
    return sum(not _is_fed(folder) for folder in _spooled(environment))


def _is_fed(folder: Path) -> bool:
    try:
        return _read_header(folder).owner_lives()
    except FileNotFoundError:
        return True  # it was completed just now
    except (ValueError, TypeError):
        return False  # `deliver_spool` sets it aside


def _spooled(environment: Environment) -> list[Path]:
    spool = environment.state / "spool"
    return sorted(path.parent for path in spool.glob(f"*/{HEADER}")) if spool.is_dir() else []


def _read_header(folder: Path) -> RunHeader:
    header = RunHeader(**json.loads((folder / HEADER).read_text(encoding="utf-8")))
    if not (
        isinstance(header.key, str) and isinstance(header.address, str) and isinstance(header.tags, dict)
    ):
        raise ValueError(f"{HEADER} is not what a stage writes")
    return header


def deliver_spool(environment: Environment) -> int:
    """Delivers what stages left in `.erv/spool` and closes the runs of killed processes as KILLED.

    Runs whose process is alive are left alone. Safe to call at any time and from several processes.
    Unreadable entries go to `.erv/spool/bad/` with a warning, and the others are delivered.

    Returns:
        The number of runs that are now complete.

    Raises:
        Outage: MLflow can't be reached; the rest stays in the spool.
    """
    folders = _spooled(environment)
    if not folders or not environment.mlflow_uri:
        return 0
    from filelock import FileLock, Timeout

    lock = FileLock(environment.state / "spool" / ".lock")
    try:
        lock.acquire(timeout=_LOCK_SECONDS)
    except Timeout:
        logger.warning("another process has been delivering .erv/spool for over %.0f s", _LOCK_SECONDS)
        return 0
    except OSError as error:  # a full disk, say
        logger.warning(".erv/spool can't be delivered now: %s", error)
        return 0
    done = 0
    try:
        delivery = Delivery(environment)
        for folder in folders:
            try:
                done += _deliver_folder(environment, delivery, folder)
            except Outage:
                raise
            except OSError as error:  # a full disk or a missing permission: the entry itself may be fine
                logger.warning("%s can't be delivered now: %s", folder, error)
            except Exception as error:
                _put_aside(folder, error)
    finally:
        lock.release()
    return done


def _put_aside(folder: Path, error: Exception) -> None:
    """Moves an undeliverable entry out of the way, so that it gives one warning and blocks nothing."""
    target = folder.parent / BAD / folder.name
    reason = f"{type(error).__name__}: {_first_line(error)}"
    try:
        target.parent.mkdir(exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        folder.rename(target)
    except OSError as trouble:
        logger.warning("%s can be neither delivered (%s) nor moved away (%s)", folder, reason, trouble)
    else:
        logger.warning("a run in the spool can't be delivered (%s); moved to %s", reason, target)


def _deliver_folder(environment: Environment, delivery: Delivery, folder: Path) -> bool:
    """Completes the run of a spool folder; returns whether there was one to complete."""
    if not (folder / HEADER).is_file():
        return False
    header = _read_header(folder)
    if header.owner_lives():
        return False
    events = _read_events(folder)
    if not events or events[-1]["kind"] != "end":
        last = events[-1].get("time") if events else None
        time = last or int((folder / HEADER).stat().st_mtime * 1000)
        if header.experiment is not None:
            events.append({**end_of_experiment(header.experiment, "KILLED"), "time": time})
        events.append({"kind": "end", "status": "KILLED", "time": time})
    if header.run_id is None:
        header.run_id = delivery.open(header, search=True)
        write_header(folder, header)
        if not records.has_another(environment, header):
            records.write(environment, header)
    for count in delivery.deliver(header.run_id, list(events)):
        del events[:count]
        write_events(folder, events)
    shutil.rmtree(folder)
    return True


def _read_events(folder: Path) -> list[Event]:
    path = folder / EVENTS
    if not path.is_file():
        return []
    events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    if not all(isinstance(event, dict) and isinstance(event.get("kind"), str) for event in events):
        raise ValueError(f"{EVENTS} has a line that is no event")
    return events
