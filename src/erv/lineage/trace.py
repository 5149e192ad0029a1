"""Where something came from and what was made from it: `erv lineage X`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from erv.environment import Environment, remedy_for
from erv.errors import RegistryError
from erv.lineage import clips
from erv.lineage.artifacts import Artifacts
from erv.lineage.entries import Locked, below, entries_in, outputs_of, producers
from erv.lineage.links import Link
from erv.lineage.membership import Membership
from erv.lineage.model_versions import ModelVersions
from erv.lineage.node import Node
from erv.lineage.runs import Runs, is_flow_run
from erv.lineage.stages import StageTrees
from erv.lineage.used import used_nodes
from erv.pipeline import MANIFESTS
from erv.register.verdict import CHAMPION
from erv.register.versions import CHALLENGER
from erv.settings import Settings
from erv.stack.reach import require
from erv.tracking import lock_entries

# Those of `promote` have no run in MLflow.
FLOW_RUN = "a run of the flow `train` (`erv champions` has what `promote` decided)"
_MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")
_COMMIT = re.compile(r"[0-9a-f]{7,40}")
_NUMBER = re.compile(r"[1-9]\d{0,8}")  # the registry's numbers; the beginning of a commit may look like one


class Provenance:
    """Answers lineage queries from registry, MLflow and object store, and from the workspace if it has run.

    Args:
        environment: the servers.
        settings: of the workspace; None for a folder without `params.yaml`.
        verify: read and hash large objects too, and every file of a registered version, code included.
        served: of these, only the files of a registered version.
    """

    def __init__(
        self,
        environment: Environment,
        settings: Settings | None,
        verify: bool = False,
        *,
        served: bool = False,
    ) -> None:
        self._environment = environment
        self._settings = settings
        if environment.mlflow_uri:
            require("MLflow", environment.mlflow_uri, environment.workspace)
        self._client = lock_entries.client_of(environment) if environment.mlflow_uri else None
        artifacts = Artifacts(environment)
        self._stages = StageTrees(environment, verify)
        self._versions = ModelVersions(environment, self._client, artifacts, self._stages, verify or served)
        self._runs = Runs(environment, artifacts, self._stages, self._came_of, self._versions.imported)

    @property
    def membership(self) -> Membership:
        """Which versions used which clips."""
        return self._versions.membership

    def trace(self, target: str) -> Node:
        """The lineage of a target.

        Args:
            target: a model version (`models:/emotion-policy/3`, `emotion-policy@champion`, `3`, `champion`),
                an MLflow run's id or its first 8 digits, a Prefect flow run's id, a git commit, the md5 of an
                output, a data set, or a clip (`mafw/00019`, or `00019` alone).

        Raises:
            RegistryError: nothing of that name is known, or no version that is named as one; the message says
                what was searched.
        """
        if _NUMBER.fullmatch(target) and _COMMIT.fullmatch(target):
            return self._number_or_commit(target)
        version = self._named_version(target)
        if version is not None:
            return self._versions.node(version)
        if is_flow_run(target):
            return self._found(self._runs.flow(target.lower()), target, FLOW_RUN)
        if _MD5.fullmatch(target):
            return self._runs.run(target) or self._content(target)
        if re.fullmatch(r"[0-9a-f]{40}", target):
            return self._found(self._runs.commit(target), target, "a git commit")
        if (version := self._alias(target)) is not None:
            return self._versions.node(version)
        node = self._data_set(target) or self._clip(target)
        if node is None and _COMMIT.fullmatch(target):
            node = self._runs.commit(target)
        node = node or self._runs.beginning(target)
        if node is None:
            raise RegistryError(
                f"{target!r} is not a version or alias of {self._model() or 'a registered model'}, a run id,"
                f" a git commit, an md5, a data set or a known clip{self._unread()}"
            )
        return node

    def _number_or_commit(self, digits: str) -> Node:
        """The version of a long number, or what ran at the commit that begins with it, or such a run.

        Raises:
            RegistryError: it is both, or neither.
        """
        commit, model = self._runs.commit(digits), self._model()
        version = self._versions.find(model, digits) if model else None
        if commit is None:
            run = None if version or self._is_clip(digits) else self._runs.beginning(digits)
            return run or self._versions.node(version or self._named_version(digits))
        others = [f"a version ({model}/{digits})"] if version else []
        others += [f"a clip (DATASET/{digits})"] if self._is_clip(digits) else []
        if others:
            found = ", ".join(commit.values["commits"])
            raise RegistryError(
                f"{digits!r} is {' and '.join(others)}, and the beginning of the git commit {found};"
                " say it as in the brackets, or more of the commit"
            )
        return commit

    # --- versions

    def version(self, target: str) -> Any | None:
        """The registered version that a target names, as the registry knows it; None if it names none.

        Raises:
            RegistryError: it names one, but there is no such version.
        """
        return self._named_version(target, alone=True) or self._alias(target)

    def _named_version(self, target: str, *, alone: bool = False) -> Any | None:
        """The version that a target names as one; None if it is something else.

        Args:
            target: what may be one.
            alone: whether only a version is wanted; otherwise an error says what else was meant, perhaps.

        Raises:
            RegistryError: there is no such version; nothing else of that name is shown instead.
        """
        if target.startswith("models:/"):
            name, wanted = _split(target.removeprefix("models:/"))
            if not name:
                raise RegistryError(f"{target!r}: expected models:/NAME/VERSION or models:/NAME@ALIAS")
            return self._version(name, wanted, target, alone)
        if _NUMBER.fullmatch(target) or target in (CHAMPION, CHALLENGER):
            return self._version(self._require_model(target), target, target, alone)
        name, wanted = _split(target)
        if name and (name == self._model() or name in self._versions.models()):
            return self._version(name, wanted, target, alone)
        return None

    def _version(self, name: str, wanted: str, target: str, alone: bool) -> Any:
        if self._client is None:
            clip = "" if alone else ", or say DATASET/CLIP for a clip"
            raise RegistryError(
                f"{target!r} is a version of {name}, but no MLflow server is configured;"
                f" {remedy_for('MLflow', self._environment.workspace)}{clip}"
            )
        version = self._versions.find(name, wanted)
        if version is None:
            hint = f"; for the clip say DATASET/{target}" if not alone and self._is_clip(target) else ""
            if not alone and _COMMIT.fullmatch(target):
                hint += f"; no run is recorded at a git commit {target}... either"
            raise RegistryError(
                f"{name} has no version or alias {wanted!r}; `erv lineage {name}@{CHALLENGER}` shows the"
                f" newest{hint}"
            )
        return version

    def _alias(self, target: str) -> Any | None:
        # MLflow takes 00019 for version 19; with leading zeros it is the name of a clip.
        model = None if target.isdigit() else self._model()
        return self._versions.find(model, target) if model else None

    def _model(self) -> str | None:
        """The model of this workspace; without settings, the only registered one."""
        if self._settings is not None:
            return self._settings.register_.model_name
        models = self._versions.models()
        return models[0] if len(models) == 1 else None

    def _require_model(self, target: str) -> str:
        model = self._model()
        if model is None:
            models = ", ".join(self._versions.models()) or "none"
            raise RegistryError(
                f"{target!r}: of which model? there is no params.yaml here, and the registered models are"
                f" {models}; say NAME/VERSION or NAME@ALIAS"
            )
        return model

    # --- outputs

    def _content(self, md5: str) -> Node:
        places = [(entries_in(Path()), "dvc.lock here")]
        places += [(version.lock, version.title) for version in self._versions.published]
        for lock, where in places:
            same = [
                (name, out)
                for name, entry in lock.items()
                for out in entry.get("outs") or []
                if str(out.get("md5", "")).removesuffix(".dir") == md5.removesuffix(".dir")
            ]
            if same:
                return self._outputs(md5, lock, same, where)
        condition = f"tags.`{lock_entries.OUTPUTS_TAG}` LIKE '%{md5}%'"
        runs = lock_entries.search(self._environment, condition, deleted=True)
        found = self._runs.run(runs[0].info.run_id) if runs else None
        return self._found(found, md5, "a run id, nor an output of any stage")

    def _outputs(self, md5: str, lock: Locked, same: list[tuple[str, Any]], where: str) -> Node:
        """The outputs of this content: several, where small files are equal."""
        nodes = []
        for name, out in same:
            facts = [f"found in {where}", *self._came_of(lock, [name], out["path"])]
            node = Node(f"{out['path']}  md5 {md5}", facts, kind="output")
            node.values = {"path": out["path"], "md5": out.get("md5"), "stage": name}
            node.children.append(self._stages.node(lock, name, None, set()))
            nodes.append(node)
        if len(nodes) == 1:
            return nodes[0]
        title = f"{len(nodes)} outputs of equal content  md5 {md5}"
        return Node(title, kind="output", values={"md5": md5}, children=nodes)

    def _came_of(self, lock: Locked, names: list[str], path: str | None = None) -> list[str]:
        """Sentences about what was made from the outputs of stages: other stages, model versions.

        A stage below one that wrote a manifest need not use each of its clips: roles say which do.

        Args:
            lock: the entries.
            names: of the stages.
            path: the only output of theirs that counts for versions; by default all do.
        """
        downstream = below(lock, names)
        facts = [f"downstream of {', '.join(names)}: {', '.join(sorted(downstream))}"] if downstream else []
        outputs = {out for out in outputs_of(lock, names) if path in (None, out[0])}
        facts += [f"in {v.model} version {v.number}" for v in self._versions.made_from(outputs)]
        unread = [v for v in self._versions.published if v.problem and outputs]
        return facts + [f"may be in {v.model} version {v.number} too: {v.problem}" for v in unread]

    # --- clips and data sets

    def _clip(self, target: str) -> Node | None:
        """A clip: what each version did with it, its row in the manifest, what the policies said of it."""
        node = Node(f"clip {target}", kind="clip")
        here = self._here(target)
        found = self.membership.matching(target)
        found |= {(row["dataset"], row["clip_id"]) for child in here for row in [child.values] if row}
        if not found and not here:
            return None
        node.values = {"clips": ["/".join(clip) for clip in sorted(found)]}
        node.links = [Link("records", None, sentence) for sentence in self.membership.unlisted]
        node.children = [*used_nodes(self.membership.of(found), clips_of=found), *here]
        return node

    def _here(self, target: str) -> list[Node]:
        """What the workspace says of a clip; nothing if the pipeline never ran here."""
        if self._settings is None:
            return []
        datasets, policies = self._settings.datasets, self._settings.compare.policies
        lock, nodes = entries_in(Path()), []
        for row in clips.manifest_rows(target, datasets):
            child = Node(
                f"{row['dataset']}/{row['clip_id']}  {row['label']}, {row['split']} of fold {row['fold']}",
                clips.facts(row, policies),
                kind="clip",
                values={
                    key: row[key] for key in ("dataset", "clip_id", "split", "fold", "label", "uri", "sha256")
                },
            )
            manifest = f"{MANIFESTS}/{row['dataset']}.parquet"
            makers = sorted(producers(lock, manifest))
            if not makers:
                child.links.append(Link("dvc.lock", False, f"no entry that wrote {manifest}; run `erv run`"))
            child.facts += self._came_of(lock, makers, manifest)
            child.children = [self._stages.node(lock, name, None, set()) for name in makers]
            nodes.append(child)
        for row in clips.excluded_rows(target, datasets):
            title = f"{row['dataset']}/{row['clip_id']}  left out by ingest"
            nodes.append(Node(title, [row["reason"]], kind="clip"))
        for dataset in clips.absent_from(target, datasets):
            nodes.append(Node(f"{target}  listed by {dataset}, but not in its source", kind="clip"))
        return nodes

    def _is_clip(self, target: str) -> bool:
        return bool(self._here(target) or self.membership.matching(target))

    def _data_set(self, target: str) -> Node | None:
        """A data set: how many of its clips each version used, and where its manifest came from."""
        here = self._settings is not None and target in self._settings.datasets
        if not here and target not in self.membership.data_sets:
            return None
        node = Node(f"data set {target}", kind="data set", values={"dataset": target})
        node.children = used_nodes(self.membership.of(None, target))
        lock = entries_in(Path())
        manifest = f"{MANIFESTS}/{target}.parquet"
        for name in sorted(producers(lock, manifest)):
            node.facts += self._came_of(lock, [name], manifest)
            node.children.append(self._stages.node(lock, name, None, set()))
        if not node.children:
            node.facts.append("no version used it, and it was not ingested here")
        return node

    def _found(self, node: Node | None, target: str, what: str) -> Node:
        if node is None:
            server = self._environment.mask(self._environment.mlflow_uri or "no MLflow server")
            raise RegistryError(
                f"{target}: not {what} that is recorded on this server ({server}, experiment"
                f" {self._environment.mlflow_experiment}) or in dvc.lock{self._unread()}"
            )
        return node

    def _unread(self) -> str:
        """The end of a sentence about what is not found, if some records can't be read."""
        unread = self.membership.unread
        more = f" and {len(unread) - 1} more" if len(unread) > 1 else ""
        return f"; it may be in records that can't be read: {unread[0]}{more}" if unread else ""


def _split(text: str) -> tuple[str, str]:
    """Name and version or alias: `emotion-policy/3` or `emotion-policy@champion`; empty if it is neither."""
    name, at, alias = text.rpartition("@")
    if at and name and alias:
        return name, alias
    name, slash, number = text.rpartition("/")
    return (name, number) if slash and name and number else ("", "")
