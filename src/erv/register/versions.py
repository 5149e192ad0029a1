"""The versions of the registered model: the tags they carry, and how they are found."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from erv.errors import RegistryError
from erv.tracking.description import PUBLISH_RUN_TAG as PUBLISH_RUN_TAG
from erv.tracking.patience import repeated

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHALLENGER = "challenger"  # the alias of the version that was published last
HASH_TAG = "erv.bundle_hash"
CODE_TAG = "erv.serving_code"  # what answers for the bundle, see `erv.register.serving_code`
CODE_COMMIT_TAG = "erv.serving_commit"  # a commit that has this code
PATH_TAG = "erv.bundle_path"
GATES_TAG = "erv.register.gates"
EXTERNAL_TAG = "erv.external"  # of a version that this pipeline did not make
_NUMBER = re.compile(r"[1-9][0-9]*")


def is_number(text: str) -> bool:
    """Whether a text is written as MLflow writes the numbers of versions: digits, no zero in front."""
    return _NUMBER.fullmatch(text) is not None


def versions_of(client: MlflowClient, name: str, bundle_hash: str) -> list[ModelVersion]:
    """The versions registered for a bundle, the lowest first."""
    return [v for v in repeated(lambda: versions(client, name)) if v.tags.get(HASH_TAG) == bundle_hash]


def versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    """All versions, the oldest first; none if the model is not registered."""
    found: list[Any] = []
    token = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", max_results=200, page_token=token)
        found.extend(page)
        token = page.token
        if not token:
            return sorted(found, key=lambda v: int(v.version))


def files_uri(client: MlflowClient, version: ModelVersion) -> str:
    """Where the files of a version are, in MLflow's words: `mlflow-artifacts:/1/models/m-.../artifacts`."""
    uri = str(client.get_model_version_download_uri(version.name, version.version)).rstrip("/")
    if uri.startswith("models:/"):  # the model that the version was registered from
        uri = str(client.get_logged_model(uri.removeprefix("models:/")).artifact_location).rstrip("/")
    return uri


def get_version(client: MlflowClient, name: str, target: str) -> ModelVersion:
    """The version with a number or an alias.

    Raises:
        RegistryError: no such version, or a number with a zero in front, which MLflow would take for another.
    """
    from mlflow.exceptions import MlflowException

    if target.isdigit() and not is_number(target):
        raise RegistryError(f"{name} has no version {target!r}: versions are 1, 2, 3, without zeros in front")
    try:
        if is_number(target):
            return client.get_model_version(name, target)
        return client.get_model_version_by_alias(name, target)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise RegistryError(
            f"{name} has no version or alias {target!r}; `erv lineage {CHALLENGER}` shows the newest"
        ) from None
