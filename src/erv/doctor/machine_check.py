"""What this machine has: Python, packages, room, and how far decoders are confined."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator

from erv.doctor.finding import Finding, some
from erv.environment import Environment
from erv.errors import SettingsError
from erv.libraries import (
    ACCEPT,
    FOLDER,
    INSTALL,
    MISSING,
    PYTHONS,
    VARIABLE,
    installed_unlike,
    lock_of,
    other_python,
    running_python,
)
from erv.settings import load_settings

_ENOUGH_BYTES = 5_000_000_000
_NEEDED_BYTES = 500_000_000


def python(environment: Environment) -> Iterator[Finding]:
    """Whether it is one that everything is locked for, and the one that results are recorded with."""
    version = platform.python_version()
    if running_python() not in PYTHONS:
        expected = f"{version}, expected {', '.join(PYTHONS[:-1])} or {PYTHONS[-1]}"
        yield Finding("python", "fail", expected, f"`make install PYTHON=python{PYTHONS[0]}`")
        return
    recorded = _recorded(environment)
    if recorded in (None, running_python()):
        yield Finding("python", "ok", version)
        return
    detail, _, remedy = other_python(recorded).partition("; ")
    accepted = os.environ.get(VARIABLE) == ACCEPT
    yield Finding("python", "warn" if accepted else "fail", detail, remedy)


def _recorded(environment: Environment) -> str | None:
    """The Python of results, if the settings can be read: their own check says if not."""
    try:
        return load_settings(environment.workspace / "params.yaml").runtime.python
    except SettingsError:
        return None


def code(environment: Environment) -> Iterator[Finding]:
    """Whether what runs here is the code of this folder, and not that of another clone."""
    from erv.stack.own_code import require_own_code

    if (environment.workspace / "src" / "erv").is_dir():
        require_own_code(environment.workspace)
        yield Finding("code", "ok", "the erv that runs is the one of this folder")


def packages(environment: Environment) -> Iterator[Finding]:
    """Whether the installed versions are those of `requirements/`."""
    locks = sorted((environment.workspace / FOLDER).glob(f"*-{running_python()}.lock"))
    if not locks:
        yield Finding(
            "packages",
            "warn",
            f"no {FOLDER}/*-{running_python()}.lock here",
            "run this from the top of the repository",
        )
        return
    unlike = [text for lock in locks for text in installed_unlike(lock)]
    if not unlike:
        yield Finding("packages", "ok", "all as in requirements/")
        return
    computing = bool(installed_unlike(environment.workspace / lock_of(running_python())))
    accepted = computing and os.environ.get(VARIABLE) == ACCEPT
    missing = any(text.endswith(MISSING) for text in unlike)
    detail = f"not as in requirements/: {some(unlike)}"
    if accepted:
        detail += f"; {VARIABLE}={ACCEPT} lets stages run, and their MLflow runs say it"
    elif computing:
        detail += "; no stage runs with these"
    yield Finding("packages", "fail" if missing or (computing and not accepted) else "warn", detail, INSTALL)


def disk(environment: Environment) -> Iterator[Finding]:
    """Room for what a run writes."""
    free = shutil.disk_usage(environment.workspace).free
    detail = f"{free / 1e9:.1f} GB free"
    if free < _NEEDED_BYTES:
        yield Finding("disk", "fail", detail, "make room: stages refuse to start below 0.5 GB")
    elif free < _ENOUGH_BYTES:
        yield Finding("disk", "warn", detail, "make room: the demo writes about 1 GB, a real corpus far more")
    else:
        yield Finding("disk", "ok", detail)


def media(environment: Environment) -> Iterator[Finding]:
    """What a clip that exploits a decoder could still do here."""
    from erv.media.confinement import tried

    try:
        given = tried()
    except OSError as error:
        yield Finding("media workers", "warn", f"can't be tried: {error}", "free some memory")
        return
    if given.gaps:
        remedy = "decode only clips that you trust, or use Linux 5.13 or later on x86-64 or ARM"
        yield Finding("media workers", "warn", f"a clip that exploits a decoder could {given.gaps}", remedy)
        return
    detail = f"read their clip alone, no network (Landlock {given.landlock}, seccomp)"
    yield Finding("media workers", "ok", detail)
