"""Which rooms of the library a stage's bytes come from, by what its script imports."""

from __future__ import annotations

import functools

import grimp

from tests.support.paths import ROOT

# Rooms around a stage: they can't change what it writes, so a change in one of them runs nothing again.
AROUND = {
    "commands",  # start stages
    "doctor",  # looks before a stage runs
    "environment.py",  # addresses and keys
    "errors.py",  # sentences; a clip's reason for quarantine is written where it is raised
    "lineage",  # reads what stages wrote
    "pipeline",  # starts and stops processes
    "progress.py",  # lines for whoever waits
    "pinning",  # makes the lock files, which are dependencies themselves
    "stack",  # servers
    "stage.py",  # arguments, logging, exit codes
    "storage",  # brings bytes, which are checked against the hashes of the lock file
    "tracking",  # what goes to MLflow
}
# What a step shows in MLflow alone, while it decides the page of the report.
SHOWN = {"figures": ("ingest", "validate", "extract")}
# Rooms that hold several: a stage depends on the ones inside that it uses.
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
    """The rooms that a stage's script imports, directly or through others; not those around it.

    Imports inside functions count, those for type checking alone do not. Of the settings, a stage has the
    section of its own name: what it reads of others is a parameter in `dvc.yaml`.
    """
    graph, found, pending = _graph(), set(), [f"stages.{stage}"]
    while pending:
        for module in graph.find_modules_directly_imported_by(pending.pop()):
            if module == "erv" or module in found or _is_around(module, stage):
                continue
            found.add(module)
            pending.append(module)
    rooms = {room_of(module) for module in found}
    # A family is imported by the name that the parameter gives it.
    return rooms | ({"policies/${policy.family}"} if "policies/common" in rooms else set())


def _is_around(module: str, stage: str) -> bool:
    top = module.split(".")[1]
    if stage in SHOWN.get(top, ()):
        return True
    return top in AROUND or f"{top}.py" in AROUND or top == "settings"
