"""Which rooms of the library decide a stage's output, from the imports of its script."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, get_args

import grimp
from pydantic import BaseModel

from erv.settings import Settings
from tests.support.paths import ROOT

# Rooms around a stage: they can't change its output, so a change in one runs nothing again.
AROUND = {
    "commands",  # start stages
    "doctor",  # checks before a stage runs
    "environment",  # addresses and keys
    "event_loop.py",  # how a stop signal ends what waits for servers
    "errors.py",  # messages; a clip's reason for quarantine is written where it is raised
    "lineage",  # reads what stages wrote
    "pipeline",  # starts and stops processes
    "progress.py",  # progress lines
    "export",  # writes versions that stages led to
    "predict",  # asks versions that stages led to
    "pinning",  # makes the lock files, which are dependencies themselves
    "stack",  # servers
    "stage.py",  # arguments, logging, exit codes; what it does to the process is in determinism.py
    "storage",  # fetches bytes, which are checked against the hashes in the lock file
    "tracking",  # what goes to MLflow
}
# Rooms that these stages only use for MLflow, but that decide the page of the report.
SHOWN = {"figures": ("ingest", "validate", "extract")}
# Rooms that contain rooms: a stage depends on those inside that it uses.
HALLS = ("policies", "training")


@functools.cache
def _graph() -> grimp.ImportGraph:
    return grimp.build_graph("erv", "stages", exclude_type_checking_imports=True)


def room_of(module: str) -> str:
    """The room of a module, as a path below `src/erv`: `media`, `shards.py`, `training/grpo`."""
    parts = module.split(".")[1:]
    if parts[0] in HALLS and len(parts) == 1:
        return f"{parts[0]}/__init__.py"
    place = "/".join(parts[: 2 if parts[0] in HALLS else 1])
    return place if (ROOT / "src" / "erv" / place).is_dir() else f"{place}.py"


def rooms_of(stage: str) -> set[str]:
    """The rooms that a stage's script imports, directly or through others, without those around it.

    Imports inside functions count; imports only for type checking do not. For settings see `settings_of`.
    """
    rooms = {room_of(module) for module in closure(f"stages.{stage}", lambda name: _is_around(name, stage))}
    rooms.add("determinism.py")  # the frame of every stage prepares the process with it
    # A family is imported by name, from the parameter.
    return rooms | ({"policies/${policy.family}"} if "policies/common" in rooms else set())


def closure(start: str, left_out: Callable[[str], bool]) -> set[str]:
    """The modules of the library that one imports, directly or through others that are not left out."""
    graph, pending = _graph(), [start]
    found: set[str] = set()
    while pending:
        for module in graph.find_modules_directly_imported_by(pending.pop()):
            if module == "erv" or module in found or left_out(module):
                continue
            found.add(module)
            pending.append(module)
    return found


def settings_of(parameters: Iterable[str]) -> set[str]:
    """The modules of settings with defaults for keys that `params.yaml` may omit, for these parameters."""
    sections = {key.partition(".")[0] for key in parameters}
    fields = {field.alias or name: field for name, field in Settings.model_fields.items()}
    models = {model for name in sections for model in _models(fields[name].annotation)}
    # A default may stand in a class that the section's own one extends.
    classes = {base for model in models for base in model.__mro__ if issubclass(base, BaseModel)}
    return {
        f"src/{item.__module__.replace('.', '/')}.py"
        for item in classes
        if any(not item.model_fields[name].is_required() for name in _own(item))
    }


def _own(model: type[BaseModel]) -> set[str]:
    return {name for name in model.__annotations__ if name in model.model_fields}


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from _models(field.annotation)
    for part in get_args(annotation):
        yield from _models(part)


def _is_around(module: str, stage: str) -> bool:
    top = module.split(".")[1]
    if stage in SHOWN.get(top, ()):
        return True
    return top in AROUND or f"{top}.py" in AROUND or top == "settings"
