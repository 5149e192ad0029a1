"""`erv doctor`: what is needed, whether it is there, and what to do if it is not.

Each section looks at one thing and is a generator of findings in the modules `*_check` beside this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from erv.doctor.clone_check import stack, variables
from erv.doctor.deployment_check import deployments, schedules
from erv.doctor.finding import Finding
from erv.doctor.machine_check import code, disk, media, packages, python
from erv.doctor.placement_check import placement
from erv.doctor.remote_check import dvc
from erv.doctor.server_check import background, orchestration, spool, storage, tracking
from erv.doctor.workspace_check import git, parameters, pipeline, sources
from erv.environment import STACK_FILE, Environment, load_environment
from erv.errors import ErvError, SettingsError


def examine(workspace: str | Path = ".") -> list[Finding]:
    """Examines a workspace; changes nothing that stays, and raises nothing."""
    return list(findings(workspace))


def findings(workspace: str | Path = ".") -> Iterator[Finding]:
    """What `examine` finds, each as soon as it is known: a server that is away takes seconds."""
    workspace = Path(workspace).resolve()
    usable = True
    try:
        environment = load_environment(workspace)
    except SettingsError as error:
        sentence, _, remedy = str(error).rpartition("; ")
        remedy = remedy.replace("the file", f".erv/{STACK_FILE}")
        yield Finding("environment", "fail", sentence, remedy)
        usable = False
        environment = Environment(workspace)
    sections: list[Callable[[Environment], Iterator[Finding]]] = [
        python,
        code,
        packages,
        disk,
        git,
        parameters,
        *([variables, stack] if usable else []),
        storage,
        *([tracking, orchestration, deployments, schedules, background] if usable else []),
        dvc,
        pipeline,
        placement,
        sources,
        spool,
        media,
    ]
    for section in sections:
        yield from _found_by(section, environment)


def _found_by(
    section: Callable[[Environment], Iterator[Finding]], environment: Environment
) -> Iterator[Finding]:
    """What a section finds; whatever stops it is a finding too, and the sections after it still run."""
    name = section.__name__
    try:
        yield from section(environment)
    except ErvError as error:
        sentence, _, remedy = str(error).replace("\n", " ").rpartition("; ")
        yield Finding(name, "fail", sentence or remedy, remedy if sentence else "")
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        yield Finding(name, "fail", f"could not be checked ({what})", "correct that, or report it as a bug")
