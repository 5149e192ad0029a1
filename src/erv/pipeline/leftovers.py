"""Outputs of stages that `dvc.yaml` no longer has: of a policy, variant or data set of an earlier run.

DVC leaves them where they are. A stage that depends on a whole folder would count them among its inputs, and
the lineage would call them ancestors. So they are moved out of the way before a run, and nothing is lost: DVC
restores them from its cache when a stage writes them again.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from erv.files import parse_yaml
from erv.pipeline.graph import PipelineStage

FOLDER = Path(".erv/set-aside")
_ANY = re.compile(r"\$\{[^}]*\}")
_ITEM = re.compile(r"\$\{item\.\w+\}")
_PARAMETER = re.compile(r"\$\{([\w.]+)\}")

Locked = Mapping[str, Mapping[str, Any]]


def set_aside(stages: Sequence[PipelineStage], lock: Locked, workspace: Path = Path()) -> tuple[Path, ...]:
    """Moves leftovers to a folder of this run below `.erv/set-aside`.

    Args:
        stages: all stages of `dvc.yaml`, not only those that are to run.
        lock: the entries of `dvc.lock`.
        workspace: top of the repository.

    Returns:
        Where they are now, sorted; nothing if there were none.
    """
    found = leftovers(stages, lock, workspace)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    moved = []
    for path in found:
        target = FOLDER / stamp / path
        (workspace / target).parent.mkdir(parents=True, exist_ok=True)
        (workspace / path).rename(workspace / target)
        moved.append(target)
        with contextlib.suppress(OSError):  # not empty
            (workspace / path).parent.rmdir()
    return tuple(moved)


def leftovers(stages: Sequence[PipelineStage], lock: Locked, workspace: Path = Path()) -> list[Path]:
    """The existing outputs of stages that are gone, sorted, as workspace paths.

    They are what the lock names for stages that `dvc.yaml` no longer has. In folders that a stage reads as a
    whole, they are also what a matrix stage would write for an item that it no longer has: the lock may have
    been lost.
    """
    names = {stage.name for stage in stages}
    written = {output for stage in stages for output in stage.outputs}
    locked = {
        str(out["path"])
        for name, entry in lock.items()
        if name not in names
        for out in entry.get("outs") or []
    }
    read_whole = {
        path
        for stage in stages
        for path in stage.dependencies
        if any(output.startswith(f"{path}/") for output in written)
    }
    strays = {
        path.relative_to(workspace).as_posix()
        for pattern in _patterns(workspace)
        if any(pattern.startswith(f"{folder}/") for folder in read_whole)
        for path in workspace.glob(pattern)
        if not path.name.startswith(".")
    }
    gone = {path for path in locked | strays if not any(overlap(path, output) for output in written)}
    return [
        Path(path)
        for path in sorted(gone)
        if (workspace / path).exists() and not any(path.startswith(f"{other}/") for other in gone)
    ]


def of_these_stages(lock: Locked, folder: Path = Path()) -> dict[str, Mapping[str, Any]]:
    """The entries of a lock whose stages the `dvc.yaml` beside it still has.

    DVC keeps the entries of stages that are gone.

    Args:
        lock: the entries of `dvc.lock`.
        folder: with the `dvc.yaml` and `params.yaml` that belong to it; without them, all entries are kept.
    """
    try:
        definitions = parse_yaml((folder / "dvc.yaml").read_bytes())["stages"]
        params = parse_yaml((folder / "params.yaml").read_bytes())
        names = {name for group, item in definitions.items() for name in _expanded(group, item, params)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return dict(lock)
    return {
        name: entry for name, entry in lock.items() if name in names or f"{name.partition('@')[0]}@*" in names
    }


def _expanded(group: str, definition: Mapping[str, Any], params: Mapping[str, Any]) -> Iterator[str]:
    """The names of a stage's matrix as DVC makes them; `group@*` for what only DVC can expand."""
    if "foreach" in definition:
        yield f"{group}@*"
        return
    matrix = definition.get("matrix")
    if matrix is None:
        yield group
        return
    values = [_resolved(value, params) for value in matrix.values()]
    for items in itertools.product(*values):
        if any(isinstance(item, dict | list) for item in items):
            yield f"{group}@*"
        yield f"{group}@{'-'.join(str(item) for item in items)}"


def _resolved(value: Any, params: Mapping[str, Any]) -> list[Any]:
    match = _PARAMETER.fullmatch(value) if isinstance(value, str) else None
    found: Any = params if match else value
    for part in match[1].split(".") if match else ():
        found = found[part]
    return list(found)


def written_paths(folder: Path) -> tuple[str, ...] | None:
    """What the stages of a `dvc.yaml` write, with a star for what parameters decide.

    Args:
        folder: with the `dvc.yaml`; None is returned if it can't be read.
    """
    try:
        return _written((folder / "dvc.yaml").read_bytes())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


@functools.lru_cache(maxsize=8)  # asked for at every stage of a lineage
def _written(content: bytes) -> tuple[str, ...]:
    return tuple(_ANY.sub("*", path) for path in _paths(content))


def _patterns(workspace: Path) -> list[str]:
    """The outputs of matrix stages, with a star for the item."""
    paths = _paths((workspace / "dvc.yaml").read_bytes())
    return [_ITEM.sub("*", path) for path in paths if _ITEM.search(path)]


def _paths(content: bytes) -> list[str]:
    return [
        str(path)
        for definition in parse_yaml(content)["stages"].values()
        for kind in ("outs", "metrics", "plots")
        for item in definition.get(kind) or []
        for path in ([item] if isinstance(item, str) else item)
    ]


def overlap(one: str, other: str) -> bool:
    """Whether two workspace paths are the same, or one is a folder around the other."""
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")
