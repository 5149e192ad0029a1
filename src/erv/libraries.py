"""Whether the libraries that run are those of `requirements/results-PYTHON.lock`, on which results depend.

Stages depend on the lock file of the Python that `runtime.python` names, so DVC records its hash beside their
outputs. That says what ran only if it is what is installed, and if that Python runs: after a `git pull` with
new versions and no `make install`, it would be a false statement.
"""

from __future__ import annotations

import os
import re
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from erv.errors import StackError

PYTHONS = ("3.11", "3.12", "3.13")
FOLDER = Path("requirements")
VARIABLE, ACCEPT = "ERV_OTHER_LIBRARIES", "accept"
TAG = "erv.other_libraries"  # of the MLflow run of a stage that ran with others
INSTALL = "`make install`"
MISSING = "is missing"  # how what is said of one that is not there ends
_SHOWN = 3
_TRAIN, _PIPELINE = "train", "pipeline"  # extras in pyproject.toml
_DISTRIBUTIONS = {"sklearn": "scikit-learn"}  # of modules that are named otherwise


def running_python() -> str:
    """The Python that runs this, such as `3.12`."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def lock_of(python: str) -> Path:
    """The file with what may change a result, and its version, under a Python such as `3.12`."""
    return FOLDER / f"results-{python}.lock"


def installed_unlike(lock: Path) -> list[str]:
    """Each distribution of a lock file that is missing here or has another version, in the file's order.

    A local label such as `+cpu` names the build, not the version, and doesn't count; lines whose marker is
    for other machines don't either.

    Args:
        lock: a file of exact versions, a requirement a line.

    Returns:
        `torch 2.12.0 instead of 2.13.0` or `av is missing`; empty if there is no such file, as outside of the
        repository.

    Raises:
        StackError: the file is damaged.
    """
    if not lock.is_file():
        return []
    found = (_unlike(wanted) for wanted in _requirements(lock) if wanted.marker is None or _is_for_us(wanted))
    return [text for text in found if text is not None]


def require_locked(workspace: Path, python: str) -> str:
    """Makes sure that what runs is what the workspace's results are recorded with.

    Args:
        workspace: top of the repository.
        python: the Python of results, `runtime.python`.

    Returns:
        What differs, if `ERV_OTHER_LIBRARIES=accept` lets it; else an empty text.

    Raises:
        StackError: something differs, or the lock file is damaged.
    """
    lock = lock_of(python)
    if not (workspace / lock).is_file():
        return ""
    unlike = installed_unlike(workspace / lock)
    running = running_python()
    if running != python:
        unlike.insert(0, f"Python {running} instead of {python}")
    if not unlike:
        return ""
    if os.environ.get(VARIABLE) == ACCEPT:
        return ", ".join(unlike)
    if running != python:
        raise StackError(
            f"{other_python(python)}, or set {VARIABLE}={ACCEPT}, which the MLflow runs then say"
        )
    more = f" and {len(unlike) - _SHOWN} more" if len(unlike) > _SHOWN else ""
    raise StackError(
        f"the installed libraries are not those of {lock}, with which results are recorded:"
        f" {', '.join(unlike[:_SHOWN])}{more}; run {INSTALL}, or set {VARIABLE}={ACCEPT} to work with them,"
        " which the MLflow runs then say"
    )


def other_python(python: str) -> str:
    """Why nothing is computed with the Python that runs this, and what to do, up to the last remedy."""
    running = running_python()
    own = f", set runtime.python to {running}, which makes all results anew" if running in PYTHONS else ""
    return (
        f"this is Python {running}, and runtime.python in params.yaml says {python}, with whose libraries"
        f" results are recorded; run `make install PYTHON=python{python}`{own}"
    )


def missing_extra(module: str) -> str | None:
    """Which extra of this package a module that can't be found belongs to.

    Args:
        module: dotted name, as `ModuleNotFoundError` has it.

    Returns:
        `train` or `pipeline`; None if all of that extra is installed, so that something else is wrong.
    """
    top = module.partition(".")[0]
    wanted = canonicalize_name(_DISTRIBUTIONS.get(top, top))
    try:
        lines = metadata.requires("erv") or []
    except metadata.PackageNotFoundError:  # the code alone, on PYTHONPATH
        lines = []
    extra = _TRAIN if wanted in _of_extra(lines, _TRAIN) else _PIPELINE
    lacking = [name for name in _of_extra(lines, extra) if _installed_version(name) is None]
    return extra if lacking else None


def _of_extra(lines: list[str], extra: str) -> set[str]:
    found = [Requirement(line) for line in lines]
    return {
        canonicalize_name(item.name)
        for item in found
        if item.marker and item.marker.evaluate({"extra": extra}) and not item.marker.evaluate({"extra": ""})
    }


def _requirements(lock: Path) -> list[Requirement]:
    try:
        lines = [line.partition("#")[0].strip() for line in lock.read_text(encoding="utf-8").splitlines()]
        return [Requirement(line) for line in lines if line and not line.startswith("-")]
    except (UnicodeDecodeError, InvalidRequirement) as error:
        what = " ".join(str(error).split())[:100]
        raise StackError(f"{lock}: damaged ({what}); restore it from git") from None


def _is_for_us(wanted: Requirement) -> bool:
    return wanted.marker is not None and wanted.marker.evaluate()


def _unlike(wanted: Requirement) -> str | None:
    version = _installed_version(wanted.name)
    if version is None:
        return f"{wanted.name} {MISSING}"
    if wanted.specifier.contains(version.partition("+")[0], prereleases=True):
        return None
    return f"{wanted.name} {version} instead of {str(wanted.specifier).removeprefix('==')}"


def _installed_version(name: str) -> str | None:
    """The version of a distribution; `metadata.version` parses its whole description, which takes longer."""
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
    said = re.search(r"^Version: *(\S+)", distribution.read_text("METADATA") or "", re.MULTILINE)
    return said[1] if said else distribution.version
