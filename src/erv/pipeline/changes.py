"""What changed since each stage last ran: DVC's own comparison of the workspace with `dvc.lock`.

Nothing is run, and nothing in the workspace is written.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from erv.pipeline.graph import PipelineStage, named_stages
from erv.pipeline.lock_file import NAME, PipelineError, lock_fault, read_lock_entries
from erv.pipeline.put_back import hash_once_back, touches

ABSENT = object()  # the value of a parameter that isn't there


@dataclass(frozen=True)
class ChangedFile:
    """A dependency, file or folder, that is not what the stage read.

    Attributes:
        path: as in `dvc.yaml`.
        before: DVC's hash of what it read; None if `dvc.lock` doesn't name it.
        after: DVC's hash of it now; None if it is missing.
    """

    path: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class ChangedParameter:
    """A parameter whose value is not the one that the stage ran with; `ABSENT` where it has none."""

    name: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.name} {_text(self.before)} -> {_text(self.after)}"


@dataclass(frozen=True)
class StageChanges:
    """What keeps DVC from calling a stage unchanged; all false and empty if nothing does.

    Attributes:
        name: the stage.
        never_ran: `dvc.lock` has no entry; nothing else is compared then.
        command: its command is another.
        files: dependencies that changed.
        parameters: leaves of its parameters that changed.
        outputs: those that are not in place, each with DVC's word for it: `deleted`, `modified`, `not in
            cache`; or what DVC failed with.
        in_cache: DVC's cache has the outputs that `dvc.lock` names.
        once_back: dependencies that will not be what the stage read once DVC has put back the outputs, of the
            stages before it, that are missing or modified here and in its cache.
        ran_before: DVC's cache has those of an earlier run with the inputs as they are now and will be then.
    """

    name: str
    never_ran: bool = False
    command: bool = False
    files: tuple[ChangedFile, ...] = ()
    parameters: tuple[ChangedParameter, ...] = ()
    outputs: tuple[tuple[str, str], ...] = ()
    in_cache: bool = False
    once_back: tuple[ChangedFile, ...] = ()
    ran_before: bool = False

    @property
    def inputs(self) -> bool:
        """Whether what it is made from has changed, and not only its outputs."""
        return bool(self.never_ran or self.command or self.files or self.parameters)

    def __bool__(self) -> bool:
        return bool(self.inputs or self.outputs)


def read_changes(stages: Sequence[PipelineStage], workspace: str | Path = ".") -> dict[str, StageChanges]:
    """The changes of each of these stages by itself, by name; what follows from one is not among them.

    Raises:
        PipelineError: no DVC repository here, or DVC can't read its files.
    """
    from dvc.config import ConfigError
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    root = Path(workspace).resolve()
    locked = read_lock_entries(root / NAME)
    wanted = {stage.name for stage in stages}
    try:
        with quiet_dvc(), Repo(str(root), _wait_for_lock=True) as repo, repo.lock:
            items = {item.name: item for item in named_stages(repo) if item.name in wanted}
            found = {
                name: _changes(item) if name in locked else StageChanges(name, never_ran=True)
                for name, item in ((stage.name, items[stage.name]) for stage in stages)
            }
            back = [out for name, item in items.items() for out in _put_back(item, found[name])]
            # Last, because asking the cache changes the item.
            return {name: _with_cache(items[name], changes, back) for name, changes in found.items()}
    except (ConfigError, DvcException) as error:
        reason = " ".join(str(error).split())
        raise PipelineError(lock_fault(root) or f"DVC can't compare the workspace ({reason})") from error


def _changes(item: Any) -> StageChanges:
    from dvc.dependency import ParamsDependency

    parameters, files = [], []
    for dep in item.deps:
        if isinstance(dep, ParamsDependency):
            parameters += list(_parameters(dep))
        else:
            after = dep.get_hash().value if dep.exists else None
            if after != dep.hash_info.value:
                files.append(ChangedFile(str(dep.def_path), dep.hash_info.value, after))
    outputs = [(str(out.def_path), state) for out in item.outs if (state := _state(out))]
    changes = StageChanges(
        item.name, False, bool(item.cmd_changed), tuple(files), tuple(parameters), tuple(outputs)
    )
    # Of outputs in another state, DVC has said already that the cache lacks them, or can't be read.
    restorable = all(state in ("deleted", "modified") for _path, state in outputs)
    return replace(changes, in_cache=bool(changes) and restorable and bool(item.outs_cached()))


def _state(out: Any) -> str:
    try:
        return next(iter(out.status().values()), "")
    except Exception as error:  # any library's: a damaged listing in the cache, say
        return f"can't be compared: {' '.join(str(error).split())}"


def _put_back(item: Any, changes: StageChanges) -> list[Any]:
    """The outputs that DVC puts back without running the stage."""
    if changes.inputs or not changes.in_cache:
        return []
    return [out for out in item.outs if str(out.def_path) in dict(changes.outputs)]


def _with_cache(item: Any, changes: StageChanges, back: Sequence[Any]) -> StageChanges:
    """Asks DVC what it could restore; changes `item`, which stands for the stage in memory."""
    then, once_back = {}, []
    for dep in item.deps:
        if touching := [out for out in back if dep.fs_path and touches(dep, out)]:
            path, before, after = str(dep.def_path), dep.hash_info.value, hash_once_back(dep, touching)
            then[path] = after
            if after != before and not changes.never_ran:
                once_back.append(ChangedFile(path, before, after))
    ran_before = bool(changes.inputs or once_back) and _ran_before(item, then)
    return replace(changes, once_back=tuple(once_back), ran_before=ran_before)


def _ran_before(item: Any, then: Mapping[str, str | None]) -> bool:
    from dvc.exceptions import DvcException
    from dvc_data.hashfile.hash_info import HashInfo

    try:
        item.save_deps()
        if any(dep.hash_info.value != then.get(str(dep.def_path), dep.hash_info.value) for dep in item.deps):
            return False  # DVC asks its cache about what is here, not about what will be
        for out in item.outs:  # else DVC would look for those of the lock
            out.hash_info = HashInfo()
        item.repo.stage_cache.restore(item, dry=True)
    except DvcException:  # it knows no such run, or an input is missing
        return False
    return True


@contextmanager
def quiet_dvc() -> Iterator[None]:
    """Keeps DVC from telling on standard output what it looks at."""
    logger = logging.getLogger("dvc")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _parameters(dep: Any) -> Iterator[ChangedParameter]:
    before, after = dep.hash_info.value or {}, dep.read_params()
    for name in dep.params:
        yield from _differences(name, before.get(name, ABSENT), after.get(name, ABSENT))


def _differences(name: str, before: Any, after: Any) -> Iterator[ChangedParameter]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys([*before, *after]):
            yield from _differences(f"{name}.{key}", before.get(key, ABSENT), after.get(key, ABSENT))
    elif before != after:
        yield ChangedParameter(name, before, after)


def _text(value: Any) -> str:
    import json

    return "(none)" if value is ABSENT else json.dumps(value, ensure_ascii=False, default=str)
