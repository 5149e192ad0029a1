"""The lineage of registered model versions: their bundle, their gates, the `dvc.lock` kept with them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erv.environment import Environment
from erv.errors import RegistryError
from erv.files import content_digest
from erv.lineage.artifacts import Artifacts
from erv.lineage.entries import entries_in
from erv.lineage.links import Link
from erv.lineage.node import Node
from erv.lineage.stages import StageTrees
from erv.pipeline import PipelineError
from erv.register.gates import read_verdict
from erv.register.register import read_bundle
from erv.register.versions import GATES_TAG, HASH_TAG, PATH_TAG, PUBLISH_RUN_TAG, get_version, versions

if TYPE_CHECKING:
    from mlflow import MlflowClient


class ModelVersions:
    """The versions of one registered model; none without MLflow (`client` is None)."""

    def __init__(
        self,
        environment: Environment,
        name: str,
        client: MlflowClient | None,
        artifacts: Artifacts,
        stages: StageTrees,
    ) -> None:
        self._environment = environment
        self._name = name
        self._client = client
        self._artifacts = artifacts
        self._stages = stages

    def find(self, target: str) -> Any | None:
        """The version with a number or alias, or None.

        Raises:
            RegistryError: MLflow refuses.
        """
        if self._client is None:
            return None
        from mlflow.exceptions import MlflowException

        try:
            return get_version(self._client, self._name, target)
        except RegistryError:
            return None
        except MlflowException as error:
            text = self._environment.mask(" ".join(str(error).split()))[:300]
            raise RegistryError(f"MLflow at {self._environment.mlflow_uri}: {text}") from error

    def node(self, version: Any) -> Node:
        """The lineage of a version: its bundle and gates, and the stages it was made by."""
        tags = version.tags
        aliases = self._client.get_registered_model(self._name).aliases  # type: ignore[union-attr]
        mine = sorted(alias for alias, owner in aliases.items() if str(owner) == str(version.version))
        node = Node(
            f"{self._name} version {version.version}" + (f" ({', '.join(mine)})" if mine else ""),
            [f"bundle {tags.get(HASH_TAG)}", f"published by run {tags.get(PUBLISH_RUN_TAG)}"],
        )
        if "erv.parent_run" in tags:
            node.facts.append(f"flow run {tags['erv.parent_run']}")
        node.facts += _gate_lines(tags.get(GATES_TAG))
        with tempfile.TemporaryDirectory() as folder:
            bundle = self._artifacts.download(
                f"models:/{self._name}/{version.version}/{tags.get(PATH_TAG)}", folder
            )
            node.links.append(self._bundle_check(bundle))
            locks = self._artifacts.pipeline_of(tags.get(PUBLISH_RUN_TAG), folder)
            try:
                lock = entries_in(locks) if locks else {}
                lacks = "no entry of register in it" if lock else "not kept with the publication"
            except PipelineError as error:
                lock, lacks = {}, str(error).partition(": ")[2].partition(";")[0]
            producer = next((n for n in lock if n.partition("@")[0] == "register"), None)
            if producer is None:
                missing = None if self._artifacts.unread else False
                node.links.append(Link("dvc.lock", missing, self._artifacts.unread or lacks))
            else:
                if bundle is not None:
                    node.links.append(lock_check(bundle, lock[producer]))
                node.children.append(self._stages.node(lock, producer, locks, set()))
        return node

    def made_from(self, md5s: set[str]) -> list[str]:
        """The numbers of the versions with one of these outputs; in an outage, those found so far."""
        from mlflow.exceptions import MlflowException

        found: list[str] = []
        try:
            for version in versions(self._client, self._name) if self._client else []:
                with tempfile.TemporaryDirectory() as folder:
                    locks = self._artifacts.pipeline_of(version.tags.get(PUBLISH_RUN_TAG), folder)
                    try:
                        lock = entries_in(locks) if locks else {}
                    except PipelineError:  # `erv lineage` of that version says so
                        continue
                    outs = {str(o.get("md5")) for e in lock.values() for o in e.get("outs") or []}
                    if md5s & outs:
                        found.append(str(version.version))
        except MlflowException:
            return found
        return found

    def _bundle_check(self, folder: Path | None) -> Link:
        if folder is None:
            missing = None if self._artifacts.unread else False
            return Link(
                "bundle", missing, self._artifacts.unread or "its files are not in the artifact store"
            )
        try:
            bundle = read_bundle(folder)
        except RegistryError as error:
            return Link("bundle", False, str(error))
        return Link("bundle", True, f"{len(bundle.files)} files in the artifact store, hashes equal")


def _gate_lines(text: str | None) -> list[str]:
    return [f"gate {read_verdict(gate).text()}" for gate in json.loads(text)] if text else []


def lock_check(bundle: Path, entry: Mapping[str, Any]) -> Link:
    """Whether the bundle of a version is the output of the entry that was kept with it."""
    digest = content_digest(bundle)
    written = [str(out.get("md5")) for out in entry.get("outs") or []]
    if digest in written:
        return Link("dvc.lock", True, f"register's output in it is this bundle, md5 {digest}")
    return Link("dvc.lock", False, f"in it register wrote {', '.join(written)}, but the bundle is {digest}")
