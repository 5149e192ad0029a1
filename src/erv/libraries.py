"""Whether the libraries that run are those of `requirements/results.lock`, on which results depend.

Stages depend on the lock file, so DVC records its hash beside their outputs. That says what ran only if it is
what is installed: after a `git pull` with new versions and no `make install`, it would be a false statement.
"""

from __future__ import annotations

import os
import re
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from erv.errors import StackError

LOCK = Path("requirements/results.lock")
VARIABLE, ACCEPT = "ERV_OTHER_LIBRARIES", "accept"
TAG = "erv.other_libraries"  # of the MLflow run of a stage that ran with others
INSTALL = "`make install`"
MISSING = "is missing"  # how what is said of one that is not there ends
_SHOWN = 3


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


def require_locked(workspace: Path) -> str:
    """Makes sure that what is installed is what the workspace's results are recorded with.

    Args:
        workspace: top of the repository.

    Returns:
        What differs, if `ERV_OTHER_LIBRARIES=accept` lets it; else an empty text.

    Raises:
        StackError: something differs, or the lock file is damaged.
    """
    unlike = installed_unlike(workspace / LOCK)
    if not unlike:
        return ""
    if os.environ.get(VARIABLE) == ACCEPT:
        return ", ".join(unlike)
    more = f" and {len(unlike) - _SHOWN} more" if len(unlike) > _SHOWN else ""
    raise StackError(
        f"the installed libraries are not those of {LOCK}, with which results are recorded:"
        f" {', '.join(unlike[:_SHOWN])}{more}; run {INSTALL}, or set {VARIABLE}={ACCEPT} to work with them,"
        " which the MLflow runs then say"
    )


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
