"""The lineage of registered model versions: their files, their gates, the `dvc.lock` kept with them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erv.environment import Environment
from erv.errors import RegistryError
from erv.files import content_digest
from erv.lineage.artifacts import Artifacts
from erv.lineage.entries import bundle_in, outputs_of
from erv.lineage.imported import IMPORTED, claims_of
from erv.lineage.links import Link
from erv.lineage.membership import Membership, VersionRoles, clips_counted, roles_counts
from erv.lineage.node import Node
from erv.lineage.origin import origin_facts, origin_values
from erv.lineage.published import Published, read_published, read_version
from erv.lineage.served import Place, bundle_link, served_links
from erv.lineage.stages import StageTrees
from erv.pipeline import PipelineError, registered
from erv.register.verdict import read_verdict
from erv.register.versions import (
    CODE_COMMIT_TAG,
    CODE_TAG,
    EXTERNAL_TAG,
    GATES_TAG,
    HASH_TAG,
    PATH_TAG,
    PUBLISH_RUN_TAG,
    get_version,
)
from erv.tracking import lock_entries

if TYPE_CHECKING:
    from mlflow import MlflowClient


class ModelVersions:
    """The registered versions; none without MLflow (`client` is None).

    Args:
        environment: where registry and stores are.
        client: of the registry.
        artifacts: of the same server.
        stages: trees of stages.
        verify: compare every file of a version, code included, with what was registered.
    """

    def __init__(
        self,
        environment: Environment,
        client: MlflowClient | None,
        artifacts: Artifacts,
        stages: StageTrees,
        verify: bool = False,
    ) -> None:
        self._environment = environment
        self._client = client
        self._artifacts = artifacts
        self._stages = stages
        self._verify = verify

    @cached_property
    def published(self) -> list[Published]:
        """All versions with their lock entries.

        Raises:
            RegistryError: MLflow refuses.
        """
        if self._client is None:
            return []
        from mlflow.exceptions import MlflowException

        try:
            return read_published(self._environment, self._client)
        except MlflowException as error:
            raise self._refusal(error) from error

    @cached_property
    def membership(self) -> Membership:
        """Which of them used which clips."""
        return Membership(self._environment, self.published)

    def models(self) -> list[str]:
        """The names of all registered models.

        Raises:
            RegistryError: MLflow refuses.
        """
        if self._client is None:
            return []
        from mlflow.exceptions import MlflowException

        try:
            return sorted(model.name for model in self._client.search_registered_models(max_results=1000))
        except MlflowException as error:
            raise self._refusal(error) from error

    def find(self, name: str, target: str) -> Any | None:
        """The version of a model with a number or alias, or None.

        Raises:
            RegistryError: MLflow refuses.
        """
        if self._client is None:
            return None
        from mlflow.exceptions import MlflowException

        try:
            return get_version(self._client, name, target)
        except RegistryError:
            return None
        except MlflowException as error:
            raise self._refusal(error) from error

    def node(self, version: Any) -> Node:
        """The lineage of a version: its files and gates, its roles, and the stages it was made by."""
        tags, name = version.tags, version.name
        aliases = self._client.get_registered_model(name).aliases  # type: ignore[union-attr]
        mine = sorted(alias for alias, owner in aliases.items() if str(owner) == str(version.version))
        node = Node(
            version_title(name, version.version, mine),
            [f"bundle {tags.get(HASH_TAG)}", f"published by run {tags.get(PUBLISH_RUN_TAG)}"],
            kind="version",
        )
        if CODE_TAG in tags:
            commit = tags.get(CODE_COMMIT_TAG)
            node.facts.append(
                f"serving code {tags[CODE_TAG]}, "
                + (f"in git commit {commit}" if commit else "in no known commit")
            )
        origin = self._origin(tags.get(PUBLISH_RUN_TAG), node)
        node.facts += origin_facts(origin)
        if "erv.parent_run" in tags:
            node.facts.append(f"flow run {tags['erv.parent_run']}")
        node.facts += _gate_lines(tags.get(GATES_TAG))
        roles = self._roles(version, aliases)
        node.values = {
            "model": name,
            "version": str(version.version),
            "aliases": mine,
            "bundle": tags.get(HASH_TAG),
            "serving_code": tags.get(CODE_TAG),
            "serving_commit": tags.get(CODE_COMMIT_TAG),
            "publish_run": tags.get(PUBLISH_RUN_TAG),
            "flow_run": tags.get("erv.parent_run"),
            **origin,
            "gates": json.loads(tags.get(GATES_TAG, "[]")),
            "roles": roles_counts(roles),
        }
        node.facts += _role_facts(roles)
        with tempfile.TemporaryDirectory() as folder:
            bundle = self._files(version, node, folder)
            locks = self._artifacts.pipeline_of(tags.get(PUBLISH_RUN_TAG), folder)
            try:
                lock = bundle_in(locks) if locks else {}
                lacks = "no entry of register in it" if lock else "not kept with the publication"
            except PipelineError as error:
                lock, lacks = {}, str(error).partition(": ")[2].partition(";")[0]
            producer = registered(lock)
            if EXTERNAL_TAG in tags:
                node.facts.append(IMPORTED)
                if bundle is not None:
                    node.values["claims"], facts = claims_of(bundle)
                    node.facts += facts
            elif producer is None:
                missing = None if self._artifacts.unread else False
                node.links.append(Link("dvc.lock", missing, self._artifacts.unread or lacks))
            else:
                if bundle is not None:
                    node.links.append(lock_check(bundle, lock[producer]))
                node.children.append(self._stages.node(lock, producer, locks, set()))
        return node

    def made_from(self, outputs: set[tuple[str, str]]) -> list[Published]:
        """The versions with all of these outputs (path, md5) in their `dvc.lock`.

        One of several isn't enough: small outputs, such as counts, may be equal where the data differs.
        """
        return [version for version in self.published if outputs and outputs <= outputs_of(version.lock)]

    def imported(self, run_id: str) -> bool:
        """Whether a run published a version that was imported from elsewhere."""
        return any(v.run_id == run_id and EXTERNAL_TAG in v.tags for v in self.published)

    def _files(self, version: Any, node: Node, folder: str) -> Path | None:
        """Checks the files of a version; returns a copy of its bundle."""
        place = Place(self._environment, self._client, version)
        path = str(version.tags.get(PATH_TAG))
        wanted = place.uri if self._verify else f"{place.uri}/{path}"
        copy = self._artifacts.download(wanted, f"{folder}/model")
        if copy is None:
            lost = None if self._artifacts.unread else False
            node.links.append(Link("bundle", lost, self._artifacts.unread or f"{place.of(path)}: missing"))
            return None
        bundle = copy / path if self._verify else copy
        node.links.append(bundle_link(bundle, path, place))
        if self._verify:
            node.links += served_links(copy, version.tags, place)
        return bundle

    def _roles(self, version: Any, aliases: Mapping[str, Any]) -> VersionRoles:
        mine = read_version(self._environment, version, aliases)
        return Membership(self._environment, [mine]).of(None)[0]

    def _origin(self, run_id: str | None, node: Node) -> dict[str, Any]:
        """What the run of a publication says; the node says so if it says nothing."""
        tags: Mapping[str, str] = {}
        try:
            if run_id is not None:
                tags = lock_entries.server_of(self._environment).get_run(run_id).data.tags
        except OSError as error:
            reason = self._environment.mask(" ".join(str(error).split()))[:200]
            node.facts.append(f"the run that published it can't be read: {reason}")
        return origin_values(tags)

    def _refusal(self, error: Exception) -> RegistryError:
        text = self._environment.mask(" ".join(str(error).split()))[:300]
        return RegistryError(f"MLflow at {self._environment.mlflow_uri}: {text}")


def version_title(name: str, number: str | int, aliases: Sequence[str]) -> str:
    """How a version is called at the head of its lineage."""
    return f"{name} version {number}" + (f" ({', '.join(aliases)})" if aliases else "")


def _role_facts(roles: VersionRoles) -> list[str]:
    facts = [
        f"{item['role']} {'from' if item['role'] == 'learned' else 'on'} {clips_counted(item['clips'])} of"
        f" {item['dataset']} in {item['stage']}"
        for item in roles_counts(roles)
    ]
    facts += [f"not recorded: {sentence}" for sentence in roles.unknown]
    return facts + [f"roles can't be read: {sentence}" for sentence in roles.unread]


def _gate_lines(text: str | None) -> list[str]:
    return [f"gate {read_verdict(gate).text()}" for gate in json.loads(text)] if text else []


def lock_check(bundle: Path, entry: Mapping[str, Any]) -> Link:
    """Whether the bundle of a version is the output of the entry that was kept with it."""
    digest = content_digest(bundle)
    written = [str(out.get("md5")) for out in entry.get("outs") or []]
    if digest in written:
        return Link("dvc.lock", True, f"register's output in it is this bundle, md5 {digest}")
    return Link("dvc.lock", False, f"in it register wrote {', '.join(written)}, but the bundle is {digest}")
