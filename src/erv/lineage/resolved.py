"""The models that people name: a registered version, or a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from erv.environment import Environment
from erv.errors import RegistryError

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from erv.register.evaluation import Subject

_EXPECTED = "expected models:/NAME/1, NAME@ALIAS, 1 or champion"


def resolved_version(target: str, environment: Environment) -> ModelVersion:
    """The registered version that a target names: `models:/NAME/1`, `NAME@ALIAS`, `NAME/1`, `1`, `champion`.

    Raises:
        RegistryError: there is no such version, or MLflow can't be reached.
    """
    found = _version(target, environment)
    if found is None:
        raise RegistryError(f"{target!r} names no version; {_EXPECTED}")
    return found


def named_model(target: str, environment: Environment) -> Subject:
    """What a target names to be evaluated: a version as above, which is fetched, or a folder on this machine.

    Raises:
        RegistryError: there is neither, a file of the version isn't as it was registered, or MLflow can't be
            reached.
    """
    from erv.register.evaluation import is_model_folder, subject_of_folder, subject_of_version
    from erv.register.fetched import fetch_version

    folder = Path(target).expanduser()
    if is_model_folder(folder):
        return subject_of_folder(folder)
    if folder.is_dir() and len(folder.parts) > 1:
        raise RegistryError(
            f"{target}: holds no model (no config.json, serving.json or policy/); name the folder that has"
            " one"
        )
    if folder.is_absolute() or target.startswith((".", "~")):
        raise RegistryError(
            f"{target}: no such folder on this machine; {_EXPECTED}, or a folder with a policy"
        )
    version = _version(target, environment)
    if version is None:
        raise RegistryError(f"{target!r} names no version; {_EXPECTED}, or a folder with a policy")
    return subject_of_version(fetch_version(version, environment))


def _version(target: str, environment: Environment) -> ModelVersion | None:
    from erv.lineage.trace import Provenance
    from erv.register.explained import explained
    from erv.settings import load_settings

    settings = load_settings() if Path("params.yaml").is_file() else None
    with explained(environment):
        return Provenance(environment, settings).version(target)
