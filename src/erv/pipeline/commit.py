"""Writes the present hashes of some dependencies into `dvc.lock`, and nothing else of a stage.

`dvc commit` would also take whatever stands in the outputs, and all dependencies and parameters as they are.
Unlike it, this adds nothing to DVC's run cache: with the old `dvc.lock` back from git, the stage runs again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from erv.pipeline.changes import quiet_dvc
from erv.pipeline.graph import named_stages
from erv.pipeline.lock_file import NAME, Entries, PipelineError, keep_lock, lock_fault

Hashes = Mapping[str, Mapping[str, str]]


def commit_dependencies(
    wanted: Hashes, before_writing: Callable[[Entries], None], workspace: str | Path = "."
) -> None:
    """Makes `dvc.lock` say that stages read these dependencies as they are now.

    Args:
        wanted: by stage, DVC's hash of each dependency that is to be taken, by its path in `dvc.yaml`.
        before_writing: called with the new entries by stage; if it raises, nothing is written.
        workspace: the top of the repository.

    Raises:
        PipelineError: a dependency is no longer what its hash says, or DVC refuses.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.stage.serialize import to_single_stage_lockfile

    root = Path(workspace).resolve()
    keep_lock(root)
    try:
        with quiet_dvc(), Repo(str(root), _wait_for_lock=True) as repo, repo.lock:
            items = [item for item in named_stages(repo) if item.name in wanted]
            for item in items:
                _take(item, wanted[item.name])
            before_writing({item.name: dict(to_single_stage_lockfile(item)) for item in items})
            if items:
                items[0].dvcfile.dump_stages(items, update_pipeline=False)
    except DvcException as error:
        reason = " ".join(str(error).split())
        raise PipelineError(lock_fault(root) or f"{NAME}: can't be written ({reason})") from error
    keep_lock(root)


def _take(item: Any, hashes: Mapping[str, str]) -> None:
    for dep in item.deps:
        path = str(dep.def_path)
        if path in hashes:
            dep.save()
            if dep.hash_info.value != hashes[path]:
                raise PipelineError(f"{path} changed while it was compared; run the command again")
