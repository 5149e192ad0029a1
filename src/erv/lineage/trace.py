"""Where something came from and what was made from it: `erv lineage X` for a version, run, hash or clip."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from erv.environment import Environment
from erv.errors import RegistryError
from erv.lineage import clips
from erv.lineage.artifacts import Artifacts
from erv.lineage.entries import Locked, below, consumers, entries_in, producers
from erv.lineage.links import Link
from erv.lineage.model_versions import ModelVersions
from erv.lineage.node import Node
from erv.lineage.stages import StageTrees
from erv.pipeline import Acceptance, behind, read_accepted
from erv.settings import Settings
from erv.stack.reach import require
from erv.tracking import lock_entries

_HEX = re.compile(r"[0-9a-f]{32}(\.dir)?")


class Provenance:
    """Answers lineage queries for one workspace and its servers."""

    def __init__(self, environment: Environment, settings: Settings, deep: bool = False) -> None:
        self._environment = environment
        self._name = settings.register_.model_name
        self._datasets, self._policies = settings.datasets, settings.compare.policies
        if environment.mlflow_uri:
            require("MLflow", environment.mlflow_uri)
        self._client = lock_entries.client_of(environment) if environment.mlflow_uri else None
        self._artifacts = Artifacts(environment)
        self._stages = StageTrees(environment, deep)
        self._versions = ModelVersions(environment, self._name, self._client, self._artifacts, self._stages)

    def trace(self, target: str) -> Node:
        """The lineage of a target.

        Args:
            target: a model version (`3`, `emotion-policy/3`), an alias (`champion`), an MLflow run id, the
                md5 of an output, or a clip (`mafw/00019`, or `00019` alone).

        Raises:
            RegistryError: nothing of that name is known; the message says what was searched.
        """
        plain = target.removeprefix(f"{self._name}/").removeprefix(f"{self._name}@")
        if _HEX.fullmatch(plain):
            return self._run(plain) or self._content(plain)
        version = self._versions.find(plain)
        if version is not None:
            return self._versions.node(version)
        clip = self._clip(plain)
        if clip is not None:
            return clip
        raise RegistryError(
            f"{target!r} is not a version or alias of {self._name}, a run id, an md5 or a known clip"
        )

    def _run(self, run_id: str) -> Node | None:
        if self._client is None:
            return None
        from mlflow.exceptions import MlflowException

        try:
            run = self._client.get_run(run_id)
        except MlflowException:
            return None
        tags = run.data.tags
        node = Node(f"MLflow run {run_id}  {run.info.run_name}, {run.info.status}")
        known = {"erv.git_commit": "git commit", "prefect.flow_run_id": "Prefect flow run"}
        node.facts += [f"{what} {tags[tag]}" for tag, what in known.items() if tag in tags]
        parent = tags.get("mlflow.parentRunId")
        if parent:
            node.facts.append(f"flow run {parent}")
        with tempfile.TemporaryDirectory() as folder:
            locks = self._artifacts.pipeline_of(run_id, folder) or self._artifacts.pipeline_of(parent, folder)
            lock = entries_in(locks or Path())
            digest = tags.get(lock_entries.ENTRY_TAG)
            accepted = read_accepted(locks or Path())
            mine = [name for name, entry in lock.items() if digest in _digests(entry, accepted)]
            seen: set[str] = set()
            if digest and not mine:
                node.facts.append(f"lock entry {digest[:12]} is in no available dvc.lock")
            if tags.get("erv.kind") in ("flow", "publish"):
                if not lock:
                    node.links.append(Link("dvc.lock", False, "no entries; run `erv run`"))
                mine = [n for n in lock if not consumers(lock, n)]
            node.children = [self._stages.node(lock, name, locks, seen) for name in mine]
            node.facts += self._came_of(lock, mine) if digest else []
        return node

    def _content(self, md5: str) -> Node:
        lock = entries_in(Path())
        owners = [
            (name, out["path"])
            for name, entry in lock.items()
            for out in entry.get("outs") or []
            if str(out.get("md5", "")).removesuffix(".dir") == md5.removesuffix(".dir")
        ]
        if not owners:
            runs = lock_entries.search(self._environment, f"tags.`{lock_entries.OUTPUTS_TAG}` LIKE '%{md5}%'")
            if not runs:
                raise RegistryError(
                    f"{md5}: not a run id, nor an output in dvc.lock or of any run on this server"
                )
            found = self._run(str(runs[0].info.run_id))
            assert found is not None
            return found
        name, path = owners[0]
        node = Node(f"{path}  md5 {md5}", self._came_of(lock, [name]))
        node.children.append(self._stages.node(lock, name, None, set()))
        return node

    def _came_of(self, lock: Locked, names: list[str]) -> list[str]:
        """Sentences about what was made from the outputs of stages: other stages, model versions."""
        users = below(lock, names)
        facts = [f"used by {', '.join(sorted(users))}"] if users else []
        md5s = {str(out.get("md5")) for name in names for out in lock[name].get("outs") or []}
        return facts + [f"in {self._name} version {number}" for number in self._versions.made_from(md5s)]

    def _clip(self, target: str) -> Node | None:
        """A clip: its row in the manifest, what was made from it, what the policies said of it."""
        lock = entries_in(Path())
        rows, excluded = (
            clips.manifest_rows(target, self._datasets),
            clips.excluded_rows(target, self._datasets),
        )
        absent = clips.absent_from(target, self._datasets)
        if not rows and not excluded and not absent:
            return None
        node = Node(f"clip {target}")
        for row in rows:
            child = Node(
                f"{row['dataset']}/{row['clip_id']}  {row['label']}, {row['split']} of fold {row['fold']}",
                clips.facts(row, self._policies),
            )
            manifest = f"data/manifest/{row['dataset']}.parquet"
            makers = sorted(producers(lock, manifest))
            if not makers:
                child.links.append(Link("dvc.lock", False, f"no entry that wrote {manifest}; run `erv run`"))
            child.facts += self._came_of(lock, makers)
            child.children = [self._stages.node(lock, name, None, set()) for name in makers]
            node.children.append(child)
        for row in excluded:
            title = f"{row['dataset']}/{row['clip_id']}  left out by ingest"
            node.children.append(Node(title, [row["reason"]]))
        for dataset in absent:
            node.children.append(Node(f"{target}  listed by {dataset}, but not in its source"))
        return node


def _digests(entry: Mapping[str, Any], accepted: Sequence[Acceptance]) -> set[str]:
    """The hash of an entry, and those of the entries whose results were kept for it."""
    digest = lock_entries.entry_hash(entry)
    return {digest, *(step.before for step in behind(digest, accepted))}
