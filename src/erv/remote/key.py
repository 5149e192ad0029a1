"""What stands for a stage with exactly these inputs: the same for every coordinator that wants it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from erv.files import sha256_of_text
from erv.pipeline import PipelineError, quiet_dvc
from erv.pipeline.graph import named_stages
from erv.tracking.lock_entries import entry_hash


def present_inputs(name: str, workspace: str | Path = ".") -> str:
    """The hash of what DVC would record of a stage before it ran now: command, dependencies, parameters.

    Args:
        name: of the stage; what it reads must be there.
        workspace: the top of the repository.

    Raises:
        PipelineError: something that it reads is missing.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.stage.serialize import to_single_stage_lockfile

    try:
        with quiet_dvc(), Repo(str(Path(workspace).resolve()), _wait_for_lock=True) as repo, repo.lock:
            (item,) = [item for item in named_stages(repo) if item.name == name]
            item.save_deps()
            return inputs_of_entry(dict(to_single_stage_lockfile(item)))
    except DvcException as error:
        raise PipelineError(f"{name}: {' '.join(str(error).split())}") from error


def inputs_of_entry(entry: Mapping[str, Any]) -> str:
    """The same hash, of an entry of `dvc.lock`."""
    return entry_hash(json.loads(json.dumps({**entry, "outs": []}, default=str)))


def stage_key(inputs: str, forced_by: str | None = None) -> str:
    """The name of a stage's board.

    Args:
        inputs: from `present_inputs`.
        forced_by: the flow run that wants the stage to run whatever was there before; its board is its own.
    """
    return sha256_of_text(f"{inputs}\n{forced_by or ''}")[:32]
