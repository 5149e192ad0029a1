"""The registered versions with the pipeline files that were kept with each, read side by side."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from erv.environment import Environment
from erv.errors import StorageError
from erv.files import md5_of_file
from erv.lineage.entries import Locked, bundle_in
from erv.pipeline import PipelineError, written_paths
from erv.register.versions import EXTERNAL_TAG, HASH_TAG, PUBLISH_RUN_TAG
from erv.tracking.lock_entries import LOCK_ARTIFACT_FOLDER, PIPELINE_FILES, server_of
from erv.tracking.rest import Refused

if TYPE_CHECKING:
    from mlflow import MlflowClient

_THREADS = 8


@dataclass(frozen=True)
class Published:
    """A registered version.

    Attributes:
        model: name of the registered model.
        number: of the version.
        aliases: that point to it.
        tags: of the version.
        lock: the entries of its `dvc.lock` that it came from; empty if `problem` or `unrecorded` says why
            there are none.
        written: what the stages of the `dvc.yaml` beside it write; None if nobody knows.
        problem: why its pipeline files can't be read; empty if they can.
        unrecorded: why it never had any; empty if it had.
    """

    model: str
    number: str
    aliases: tuple[str, ...]
    tags: Mapping[str, str] = field(hash=False)
    lock: Locked = field(default_factory=dict, hash=False)
    written: tuple[str, ...] | None = field(default=None, hash=False)
    problem: str = ""
    unrecorded: str = ""

    @property
    def run_id(self) -> str | None:
        """The MLflow run that published it."""
        return self.tags.get(PUBLISH_RUN_TAG)

    @property
    def title(self) -> str:
        """`emotion-policy version 3 (champion)`."""
        aliases = f" ({', '.join(self.aliases)})" if self.aliases else ""
        return f"{self.model} version {self.number}{aliases}"


def read_published(environment: Environment, client: MlflowClient) -> list[Published]:
    """All versions of every registered model of which erv published a version, with their lock entries.

    Raises:
        MlflowException: MLflow refuses the list of versions.
    """
    found = _versions(client)
    ours = {version.name for version in found if HASH_TAG in version.tags}
    aliases = {name: client.get_registered_model(name).aliases for name in sorted(ours)}
    chosen = [version for version in found if version.name in ours]
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(
            pool.map(lambda version: read_version(environment, version, aliases[version.name]), chosen)
        )


def kept_source(environment: Environment, versions: Sequence[Published], md5: str, path: str) -> bytes | None:
    """The lock file of a source with this hash: the workspace's, or one kept with a version; else None.

    Args:
        environment: where MLflow is.
        versions: those whose publications may have kept it.
        md5: of the lock file.
        path: of it in the workspace.

    Raises:
        StorageError: what a publication kept can't be read now.
    """
    here = environment.workspace / path
    if here.is_file() and md5_of_file(here) == md5:
        return here.read_bytes()
    for version in versions:
        if version.run_id is None or not _reads(version.lock, path, md5):
            continue
        try:
            content = _kept(environment, version.run_id, PurePosixPath(path).name)
        except OSError as error:
            text = environment.mask(" ".join(str(error).split()))
            raise StorageError(
                f"{path} kept with run {version.run_id} can't be read now: {text[:300]}"
            ) from error
        # A publication keeps the lock that the workspace has by then, which may be of a later pin.
        if content is not None and hashlib.md5(content, usedforsecurity=False).hexdigest() == md5:
            return content
    return None


def _reads(lock: Locked, path: str, md5: str) -> bool:
    """Whether a stage of a lock read the file of this path and hash."""
    return any(
        item.get("path") == path and item.get("md5") == md5
        for entry in lock.values()
        for item in entry.get("deps") or []
    )


def _kept(environment: Environment, run_id: str, name: str) -> bytes | None:
    """A pipeline file that was kept with a run; None if there is none.

    Raises:
        OSError: MLflow can't be reached, or refuses.
    """
    server, path = server_of(environment), f"{LOCK_ARTIFACT_FOLDER}/{name}"
    try:
        listed = server.list_artifacts(run_id, LOCK_ARTIFACT_FOLDER)
    except Refused as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None  # the run is gone for good
    return server.read_artifact(run_id, path) if path in listed else None


def _versions(client: MlflowClient) -> list[Any]:
    found: list[Any] = []
    token = None
    while True:
        page = client.search_model_versions(max_results=1000, page_token=token)
        found.extend(page)
        token = page.token
        if not token:
            return sorted(found, key=lambda version: (version.name, int(version.version)))


def read_version(environment: Environment, version: Any, aliases: Mapping[str, Any]) -> Published:
    """A version with its lock entries.

    Args:
        environment: where MLflow is.
        version: of the registry.
        aliases: version by alias, of its registered model.
    """
    mine = tuple(sorted(alias for alias, owner in aliases.items() if str(owner) == str(version.version)))
    found = Published(version.name, str(version.version), mine, dict(version.tags))
    if EXTERNAL_TAG in found.tags:
        return replace(found, unrecorded="what it learned from, as it is external")
    if found.run_id is None:
        return replace(found, unrecorded="what it learned from, as it was not published by erv")
    return _with_lock(found, environment, found.run_id)


def _with_lock(found: Published, environment: Environment, run_id: str) -> Published:
    """A version with the lock entries that were kept with its publication, or why there are none."""
    server = server_of(environment)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            kept = server.list_artifacts(run_id, LOCK_ARTIFACT_FOLDER)
            for path in kept:
                if PurePosixPath(path).name in PIPELINE_FILES:
                    (folder / PurePosixPath(path).name).write_bytes(server.read_artifact(run_id, path))
            lock, written = bundle_in(folder), written_paths(folder)
        except (OSError, PipelineError) as error:
            text = environment.mask(" ".join(str(error).replace(f"{folder}/", "").split()))
            problem = f"the pipeline files kept with run {run_id} can't be read: {text[:300]}"
            return replace(found, problem=problem)
    problem = "" if lock else f"no dvc.lock was kept with run {run_id}"
    return replace(found, lock=lock, written=written, problem=problem)
