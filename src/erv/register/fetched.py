"""A copy of a published version on this machine, compared with what was recorded before any of it is used."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erv.environment import Environment
from erv.errors import RegistryError
from erv.files import remove, scratch_folder, sha256_of_file
from erv.register.explained import explained
from erv.register.record import RECORD, RECORD_TAG, changed_files
from erv.register.versions import HASH_TAG, PATH_TAG, files_uri
from erv.tracking.lock_entries import client_of
from erv.tracking.patience import repeated

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True)
class FetchedVersion:
    """A version of which every file, the code included, is as it was registered.

    Attributes:
        name: of the registered model.
        number: of the version.
        record: SHA-256 of its `lineage.json`, which has the hashes of all its files.
        bundle_hash: the hash of its bundle.
        folder: the MLflow model.
        bundle: its bundle, within `folder`.
        lineage: the content of its `lineage.json`.
    """

    name: str
    number: str
    record: str
    bundle_hash: str
    folder: Path
    bundle: Path
    lineage: Mapping[str, Any]

    @property
    def title(self) -> str:
        """Its name for people."""
        return f"{self.name} version {self.number}"


def fetch_version(version: ModelVersion, environment: Environment) -> FetchedVersion:
    """Downloads a version to `.erv/versions`, unless an intact copy is there.

    Args:
        version: as the registry knows it.
        environment: where MLflow is.

    Raises:
        RegistryError: erv did not publish it, an older one did, MLflow can't be reached, or a file is not as
            it was registered.
    """
    name, number, tags = version.name, str(version.version), version.tags
    if RECORD_TAG not in tags or PATH_TAG not in tags:
        raise RegistryError(
            f"{name} version {number}: no digests of its files were recorded when it was registered; `erv"
            " publish` registers bundles with theirs"
        )
    folder = environment.state / "versions" / name / f"{number}-{tags[RECORD_TAG][:12]}"

    def download(work: Path) -> Path:
        with explained(environment):
            return _download(files_uri(client_of(environment), version), environment, work)

    _make_sure(folder, tags[RECORD_TAG], download)
    if (fault := fault_of(folder, tags[RECORD_TAG])) is not None:
        raise RegistryError(
            f"{name} version {number}: {fault}; `erv lineage {name}/{number} --verify` says what to do"
        )
    lineage = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    bundle = folder / tags[PATH_TAG]
    return FetchedVersion(name, number, tags[RECORD_TAG], tags[HASH_TAG], folder, bundle, lineage)


def _make_sure(folder: Path, recorded: str, download: Callable[[Path], Path]) -> None:
    """Replaces a copy that is missing or not as it was registered; one process at a time, the others wait."""
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if fault_of(folder, recorded) is not None:
            remove(folder)
            with scratch_folder(folder) as work:
                download(work).replace(folder)


def fault_of(folder: Path, recorded: str) -> str | None:
    """What is wrong with a copy of a version; None if every file is as it was registered.

    Args:
        folder: the copy.
        recorded: SHA-256 of its record.
    """
    path = folder / RECORD
    if not path.is_file():
        return f"{RECORD} is missing"
    if sha256_of_file(path) != recorded:
        return f"{RECORD} was changed"
    files = json.loads(path.read_text(encoding="utf-8"))["files"]
    fault = next(changed_files(folder, files), None)
    return None if fault is None else f"{fault[0]}: {fault[1]}"


def _download(uri: str, environment: Environment, work: Path) -> Path:
    import mlflow

    options = {"artifact_uri": uri, "dst_path": str(work), "tracking_uri": environment.mlflow_uri}
    return Path(repeated(lambda: mlflow.artifacts.download_artifacts(**options)))
