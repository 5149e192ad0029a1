"""The newest MLflow run of each stage on this machine, kept in `.erv/runs/<address>.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from erv.environment import Environment
from erv.files import write_text
from erv.tracking.header import RunHeader


def write(environment: Environment, header: RunHeader) -> None:
    """Records the newest run of a stage: run_id and start (milliseconds)."""
    record = {"run_id": header.run_id, "started": header.started, "key": header.key}
    write_text(json.dumps(record) + "\n", _path(environment, header.address), shared=True)


def read(environment: Environment, address: str) -> dict[str, Any] | None:
    """The newest run of a stage on this machine: run_id, started (ms), or None."""
    try:
        record = json.loads(_path(environment, address).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # none, or damaged: the run is then not tagged
        return None
    return record if isinstance(record, dict) else None


def has_another(environment: Environment, header: RunHeader) -> bool:
    """Whether the record of a run's stage is of another run; a damaged record is of none."""
    path = _path(environment, header.address)
    return path.is_file() and _key_in(path) not in (None, header.key)


def _key_in(record: Path) -> str | None:
    """The key of the run in a record; None if the record is damaged."""
    try:
        return str(json.loads(record.read_text(encoding="utf-8"))["key"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def _path(environment: Environment, address: str) -> Path:
    return environment.state / "runs" / f"{address}.json"
