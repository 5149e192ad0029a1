"""The stages of a sweep and what they depend on, as they were when it began: `dvc.yaml` may change since."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from erv.doctor.reruns import all_reruns
from erv.errors import SettingsError
from erv.files import write_document
from erv.parameters import WITHOUT_EFFECT
from erv.pipeline import PipelineStage, read_stages, select

FILE = "stages.json"


@dataclass(frozen=True)
class Graph:
    """The pipeline as a sweep sees it.

    Attributes:
        stages: all of `dvc.yaml`, each after all that it depends on.
        own: the stages, or groups of them, that depend on each parameter.
        members: the groups that have a stage for each entry of a parameter; empty for most.
    """

    stages: tuple[PipelineStage, ...]
    own: Mapping[str, tuple[str, ...]]
    members: Mapping[str, tuple[str, ...]]

    def users(self, name: str) -> tuple[str, ...]:
        """The stages or groups that depend on a parameter, which `params.yaml` need not name yet."""
        if name in self.own or name.startswith(WITHOUT_EFFECT):
            return (*self.own.get(name, ()), *self.members.get(name, ()))
        section = f"{name.rpartition('.')[0]}."  # a reward that its variant doesn't have yet, say
        return next((users for other, users in self.own.items() if other.startswith(section)), ())

    def makers(self, stage: str, inputs: Sequence[str]) -> list[str]:
        """The stages that make what a stage reads below these paths, and all that they need in turn."""
        (reader,) = [item for item in self.stages if item.name == stage]
        read = [path for path in reader.dependencies if _below_any(path, inputs)]
        direct = [
            item.name
            for item in self.stages
            if any(_below_any(out, read) or _below_any(path, [out]) for out in item.outputs for path in read)
        ]
        # Without a target, `select` takes every stage.
        return [item.name for item in select(self.stages, direct)] if direct else []

    def uses(self, name: str, stages: Collection[str]) -> bool:
        """Whether one of these stages depends on a parameter."""
        users = self.users(name)
        return any(item in users or item.partition("@")[0] in users for item in stages)

    def save(self, folder: Path) -> None:
        """Writes it into the folder of what a sweep keeps."""
        write_document(asdict(self), folder / FILE)


def read_graph(workspace: Path) -> Graph:
    """The stages of a clone as they are now.

    Raises:
        SettingsError: `params.yaml` has faults.
        PipelineError: `dvc.yaml` has faults.
    """
    reruns = all_reruns(workspace)
    return Graph(
        read_stages(workspace),
        {item.name: item.own for item in reruns},
        {item.name: item.members for item in reruns if item.members},
    )


def kept_graph(folder: Path) -> Graph | None:
    """The stages that a sweep keeps; None if it was begun by a version of erv that kept none.

    Raises:
        SettingsError: the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        stages = tuple(
            PipelineStage(**{name: _as_tuple(value) for name, value in item.items()})
            for item in found["stages"]
        )
        own, members = (
            {name: tuple(users) for name, users in found[key].items()} for key in ("own", "members")
        )
        return Graph(stages, own, members)
    except (ValueError, TypeError, LookupError, AttributeError):
        raise SettingsError(
            f"{path}: damaged; give the sweep another name, or delete {folder.parent}"
        ) from None


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _below_any(path: str, folders: Sequence[str]) -> bool:
    """Whether a path is one of these or lies below one."""
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)
