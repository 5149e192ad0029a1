"""What packages that only some settings need have to be: the versions that `requirements/` pins."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def installed_version(package: str) -> str | None:
    """The version of a distribution in this environment; None if it has none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def version_fault(package: str, found: str | None, requirements: Path) -> str | None:
    """What is wrong with an installed version, as a part of a sentence; None if it is the pinned one.

    Args:
        package: name of the distribution.
        found: the installed version, None if there is none.
        requirements: the file with the line `package==version`.
    """
    if found is None:
        return f"no {package}"
    try:
        lines = requirements.read_text(encoding="utf-8").split("\n")
    except OSError:
        name = f"requirements/{requirements.name}"
        return f"{package} {found}, and {name}, which names the expected version, isn't here"
    start = f"{package}=="
    expected = next(line for line in lines if line.startswith(start)).removeprefix(start).strip()
    local = found.partition("+")[0]  # a build for another CUDA is 0.33.0+cu129
    return None if local == expected else f"{package} {found}, expected {expected}"
