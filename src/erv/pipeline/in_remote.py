"""Which stages need nothing but outputs that DVC's remote has, so that they are fetched and not run.

That is what `dvc repro --pull` decides, and so `erv run`: same command and parameters, same inputs once the
stages before are restored, and each missing output in the remote. Nothing is fetched into the cache here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from erv.pipeline.changes import StageChanges, quiet_dvc
from erv.pipeline.graph import PipelineStage, named_stages
from erv.pipeline.lock_file import PipelineError
from erv.pipeline.put_back import hash_once_back, touches

_MISSING = ("deleted", "not in cache")


def restorable_from_remote(
    stages: Sequence[PipelineStage], changes: Mapping[str, StageChanges], workspace: str | Path = "."
) -> frozenset[str]:
    """The names of the stages whose results DVC's default remote has; none where no remote is configured.

    Args:
        stages: each after all that it depends on.
        changes: from `read_changes`, of all of them.
        workspace: root of the repository.

    Raises:
        PipelineError: the remote can't be asked.
    """
    from dvc.repo import Repo

    candidates = {name for name, change in changes.items() if _may_be_there(change)}
    if not candidates:
        return frozenset()
    with quiet_dvc(), Repo(str(Path(workspace).resolve()), _wait_for_lock=True) as repo, repo.lock:
        if not repo.config["core"].get("remote"):
            return frozenset()
        items = {item.name: item for item in named_stages(repo)}
        try:
            remote = _Remote(repo.cloud.get_remote_odb(), [items[name] for name in candidates])
        except Exception as error:  # of DVC, of the library of its kind of store, or of the network
            raise PipelineError(" ".join(str(error).split()) or type(error).__name__) from error
        found: set[str] = set()
        back: list[Any] = []  # the outputs that will be as `dvc.lock` names them
        for stage in stages:
            item, change = items[stage.name], changes[stage.name]
            if not _same_once_back(item, change, back):
                continue
            if stage.name in candidates and remote.has(item):
                found.add(stage.name)
                back += item.outs
            elif change.in_cache:
                back += item.outs
        return frozenset(found)


def _may_be_there(change: StageChanges) -> bool:
    """Whether only outputs are missing, or inputs that other stages write."""
    if change.never_ran or change.command or change.parameters or change.in_cache or not change.outputs:
        return False
    return all(state in _MISSING for _path, state in change.outputs)


def _same_once_back(item: Any, change: StageChanges, back: Sequence[Any]) -> bool:
    """Whether all that a stage reads will be what it read when it ran."""
    if change.never_ran or change.command or change.parameters:
        return False
    before = {file.path: file.before for file in change.files}
    for dep in item.deps:
        path = str(dep.def_path)
        touching = [out for out in back if dep.fs_path and touches(dep, out)]
        if touching and hash_once_back(dep, touching) != dep.hash_info.value:
            return False
        if path in before and not touching:
            return False
    return True


class _Remote:
    """What of some stages' outputs is in the remote, asked once for all of them."""

    def __init__(self, odb: Any, items: Sequence[Any]) -> None:
        from dvc_data.hashfile.tree import Tree

        outs = [out for item in items for out in item.outs if out.use_cache and out.hash_info]
        wanted = {out.hash_info.value for out in outs}
        self._there = set(odb.oids_exist(wanted))
        files: set[str] = set()
        for out in outs:
            if out.hash_info.isdir and out.hash_info.value in self._there:
                out.obj = Tree.load(odb, out.hash_info)  # in memory, for those who read a part of it
                files.update(_members(out))
        self._there |= set(odb.oids_exist(files)) if files else set()

    def has(self, item: Any) -> bool:
        """Whether every missing output of a stage is there as a whole."""
        missing = [out for out in item.outs if not out.exists or (out.use_cache and out.changed_cache())]
        return all(out.use_cache and self._there.issuperset(_needed(out)) for out in missing)


def _needed(out: Any) -> Iterator[str]:
    yield out.hash_info.value
    if out.hash_info.isdir:
        yield from _members(out)


def _members(out: Any) -> Iterator[str]:
    return (info.value for _key, _meta, info in out.obj or ())
