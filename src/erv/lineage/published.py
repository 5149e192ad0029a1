"""The registered versions with the pipeline files that were kept with each, read side by side."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from erv.environment import Environment
from erv.files import md5_of_file
from erv.lineage.entries import Locked, entries_in
from erv.pipeline import PipelineError
from erv.register.versions import EXTERNAL_TAG, HASH_TAG, PUBLISH_RUN_TAG
from erv.tracking.lock_entries import LOCK_ARTIFACT_FOLDER, PIPELINE_FILES, server_of

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
        lock: the entries of its `dvc.lock`; empty if `problem` says why there are none.
        problem: why its pipeline files can't be read; empty if they can.
    """

    model: str
    number: str
    aliases: tuple[str, ...]
    tags: Mapping[str, str] = field(hash=False)
    lock: Locked = field(default_factory=dict, hash=False)
    problem: str = ""

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
    """The lock file of a source with this hash: the workspace's, or one kept with a version; else None."""
    here = environment.workspace / path
    if here.is_file() and md5_of_file(here) == md5:
        return here.read_bytes()
    server = server_of(environment)
    for version in versions:
        reads = any(
            item.get("path") == path and item.get("md5") == md5
            for entry in version.lock.values()
            for item in entry.get("deps") or []
        )
        if reads and version.run_id is not None:
            return server.read_artifact(version.run_id, f"{LOCK_ARTIFACT_FOLDER}/{PurePosixPath(path).name}")
    return None


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
    lock, problem = _lock(environment, version.tags.get(PUBLISH_RUN_TAG))
    if EXTERNAL_TAG in version.tags:
        problem = "it is external, so what it was made from isn't recorded"
    return Published(version.name, str(version.version), mine, dict(version.tags), lock, problem)


def _lock(environment: Environment, run_id: str | None) -> tuple[Locked, str]:
    """The lock entries that were kept with a publication, and why there are none."""
    if run_id is None:
        return {}, "it was not published by erv, so what it was made from isn't recorded"
    server = server_of(environment)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            kept = server.list_artifacts(run_id, LOCK_ARTIFACT_FOLDER)
            for path in kept:
                if PurePosixPath(path).name in PIPELINE_FILES:
                    (folder / PurePosixPath(path).name).write_bytes(server.read_artifact(run_id, path))
            lock = entries_in(folder)
        except (OSError, PipelineError) as error:
            text = environment.mask(" ".join(str(error).replace(f"{folder}/", "").split()))
            return {}, f"the pipeline files kept with run {run_id} can't be read: {text[:300]}"
    return lock, "" if lock else f"no dvc.lock was kept with run {run_id}"
