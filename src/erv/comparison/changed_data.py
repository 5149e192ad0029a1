"""Which data differ between an earlier run and now, in a line for the end of a run."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from erv.comparison.differences import differing_data
from erv.environment import Environment
from erv.errors import ErvError
from erv.lineage.entries import Locked, entries_in, producers
from erv.parameters import PARAMETERS
from erv.pipeline.graph import FILE as PIPELINE
from erv.pipeline.lock_file import NAME as LOCK
from erv.tracking.lock_entries import LOCK_ARTIFACT_FOLDER, server_of
from erv.tracking.rest import Run

_INGEST = "ingest@"
_SHOWN = 6


def data_since(run: Run, environment: Environment) -> str:
    """A line on the data in which the workspace differs from a run; empty if they are the same.

    Args:
        run: that keeps its `dvc.lock`, as those of flows and publications do.
        environment: where MLflow is, and the workspace.
    """
    try:
        before = _kept(run, environment)
        found = changed_data(before, entries_in(environment.workspace)) if before else []
    except (ErvError, OSError) as error:
        return f"data: not compared, {environment.mask(' '.join(str(error).split()))[:200]}"
    if not before:
        return f"data: not compared, as that run keeps no {LOCK}; see `erv compare {run.info.run_id} .`"
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"data that differ: {', '.join(found[:_SHOWN])}{more}" if found else ""


def changed_data(before: Locked, now: Locked) -> list[str]:
    """What two runs began with that differs.

    Returns:
        `mafw`, `dfew (new)`, `emer (gone)`: data sets of which `ingest` wrote something else, or that one
        side lacks. Then paths of what stages read that is neither code nor written by a stage: prompts, say.
    """
    one, other = (_data_sets(lock) for lock in (before, now))
    names = sorted({*one, *other})
    found = [
        name + (" (new)" if name not in one else " (gone)" if name not in other else "")
        for name in names
        if one.get(name) != other.get(name)
    ]
    locks = {
        f"data/sources/{name}.lock.json" for name in names
    }  # what counts of these is in what ingest wrote
    return found + [
        item.path
        for item in differing_data(before, now)
        if item.path not in locks and not (producers(before, item.path) or producers(now, item.path))
    ]


def _data_sets(lock: Locked) -> dict[str, Mapping[str, Any]]:
    """What `ingest` wrote of each data set: path -> hash."""
    return {
        name.removeprefix(_INGEST): {out["path"]: out.get("md5") for out in entry.get("outs") or []}
        for name, entry in lock.items()
        if name.startswith(_INGEST)
    }


def _kept(run: Run, environment: Environment) -> Locked:
    """The lock entries that a run keeps; none if it keeps none."""
    server, run_id = server_of(environment), run.info.run_id
    there = server.list_artifacts(run_id, LOCK_ARTIFACT_FOLDER)
    with tempfile.TemporaryDirectory() as name:
        for file in (LOCK, PIPELINE, PARAMETERS):
            if (path := f"{LOCK_ARTIFACT_FOLDER}/{file}") in there:
                (Path(name) / file).write_bytes(server.read_artifact(run_id, path))
        return entries_in(Path(name))
