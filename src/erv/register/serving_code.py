"""Which code answers when a version is served, and a digest of it.

A version is served by the code that was stored with it, so another code makes another version, even of the
same bundle. Comments, docstrings and formatting don't count. Code that no answer passes through, such as
commands and stages, is not stored.
"""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path, PurePath

from erv.files import sha256_of_file, sha256_of_text
from erv.policies.common.families import family_of, read_config
from erv.register.imports import PACKAGE, imported
from erv.syntax import what_runs

# What mlflow runs, and what decides which files and packages it stores.
_STARTS = ("erv.register.serving_model", "erv.register.model_content")


def serving_code(bundle: Path) -> str:
    """SHA-256 over the code that answers for a bundle.

    Args:
        bundle: its folder; the configuration of its policy names the family that reads it.

    Raises:
        TrainingError: no family reads the policy.
    """
    digests = {path.relative_to(PACKAGE).as_posix(): _digest(path) for path in serving_files(bundle)}
    return sha256_of_text("".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())))


def serving_files(bundle: Path) -> set[Path]:
    """The modules that answering imports, and the files of data beside them."""
    folder = bundle / "policy"
    # The only module that is imported by a name that isn't in the code.
    family = f"erv.policies.{family_of(read_config(folder), folder)}"
    modules = set(imported([*_STARTS, family]).files.values())
    folders = {path.parent for path in modules} - {PACKAGE}
    return modules | {path for path in _data() if not folders.isdisjoint(path.parents)}


def copy_code(bundle: Path, folder: Path) -> Path:
    """Copies the code that answers for a bundle into a folder, as a package; returns the package."""
    for path in serving_files(bundle):
        copy = folder / PACKAGE.name / path.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return folder / PACKAGE.name


def _data() -> set[Path]:
    """The files of data that belong to the package.

    In a working tree that is what would be packaged: editors and desktops leave other files beside the code.
    """
    found = {path for pattern in _patterns() for path in PACKAGE.glob(pattern)}
    return {path for path in found if path.is_file() and path.suffix not in (".py", ".pyc")}


def is_data(path: PurePath) -> bool:
    """Whether a file of this path in the package would be one of its files of data; it need not be there."""
    return path.suffix not in (".py", ".pyc") and any(path.match(pattern) for pattern in _patterns())


def _patterns() -> list[str]:
    project = PACKAGE.parents[1] / "pyproject.toml"
    if not project.is_file():  # installed, so there is nothing else
        return ["**/*"]
    tool = tomllib.loads(project.read_text(encoding="utf-8"))["tool"]
    patterns: list[str] = tool["setuptools"]["package-data"][PACKAGE.name]
    return patterns


def _digest(path: Path) -> str:
    return sha256_of_text(what_runs(path.read_bytes())) if path.suffix == ".py" else sha256_of_file(path)
