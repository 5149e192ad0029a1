"""Whether the files of a version, the code that serves it included, are those that were registered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from erv.environment import Environment
from erv.errors import RegistryError, StorageError
from erv.files import sha256_of_file
from erv.lineage.links import Link
from erv.register.record import RECORD, RECORD_TAG, changed_files
from erv.register.register import read_bundle
from erv.register.versions import files_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

WHAT = "served files"
_SHOWN = 20
_REMEDY = (
    "don't serve this version (`erv rollback`), then put the file back from a copy with that sha256, or"
    " delete the version in MLflow and `erv publish` its bundle again"
)


class Place:
    """Where the files of a version are.

    Attributes:
        uri: as MLflow addresses it, `mlflow-artifacts:/1/models/m-.../artifacts`.
    """

    def __init__(self, environment: Environment, client: MlflowClient, version: Any) -> None:
        self._environment = environment
        self.uri = files_uri(client, version)

    def of(self, path: str) -> str:
        """A file in MLflow's words, and in those of the object store behind MLflow if that is ours."""
        behind = self._behind(path)
        return f"{self.uri}/{path}" + (f" ({behind})" if behind else "")

    def _behind(self, path: str) -> str | None:
        from erv.storage.store import open_store

        address = urlsplit(self.uri)
        if address.scheme != "mlflow-artifacts" or not self._environment.has_storage:
            return None
        base = f"s3://{self._environment.artifact_bucket}{address.path}"
        try:
            ours = open_store(self._environment).exists(f"{base}/MLmodel")
        except StorageError:  # of no importance: MLflow's own address is named anyway
            return None
        return f"{base}/{path}" if ours else None


def bundle_link(folder: Path, name: str, place: Place) -> Link:
    """Whether the bundle in a version's files is whole.

    Args:
        folder: a copy of the bundle.
        name: path of the bundle among the version's files.
        place: where the files are.
    """
    try:
        bundle = read_bundle(folder)
    except RegistryError as error:
        # Its remedy, at the end, is for the copy in a workspace.
        fault = str(error).replace(str(folder), place.of(name)).rpartition("; ")[0]
        return Link("bundle", False, f"{fault}; {_REMEDY}")
    return Link("bundle", True, f"{len(bundle.files)} files in {place.uri}, hashes equal")


def served_links(folder: Path, tags: Mapping[str, str], place: Place) -> list[Link]:
    """Compares every file of a version with what was recorded when it was registered.

    Args:
        folder: a copy of all files of the version.
        tags: of the version, from the registry.
        place: where the files are.
    """
    recorded = tags.get(RECORD_TAG)
    if recorded is None:
        return [
            Link(WHAT, None, "no digests were recorded when it was registered; an older erv registered it")
        ]
    path = folder / RECORD
    if not path.is_file():
        return [Link(WHAT, False, f"{place.of(RECORD)}: missing; put it back (sha256 {recorded})")]
    if sha256_of_file(path) != recorded:
        return [
            Link(WHAT, False, f"{place.of(RECORD)}: changed, expected sha256 {recorded}; put that one back")
        ]
    files: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["files"]
    faults = list(changed_files(folder, files))
    if not faults:
        return [Link(WHAT, True, f"{len(files)} files in {place.uri}, code included, as registered")]
    links = [Link(WHAT, False, f"{place.of(name)}: {fault}; {_REMEDY}") for name, fault in faults[:_SHOWN]]
    if len(faults) > _SHOWN:
        links.append(Link(WHAT, False, f"{len(faults) - _SHOWN} more files of {place.uri}"))
    return links
