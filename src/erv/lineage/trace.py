"""Where something came from and what was made from it: `erv lineage X` for a version, run, hash or clip."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from erv.environment import Environment
from erv.errors import RegistryError, full_disk
from erv.files import content_digest
from erv.lineage import clips
from erv.lineage.links import Link, LinkChecker
from erv.pipeline import PipelineError, of_these_stages, read_lock_entries
from erv.settings import Settings
from erv.stack.reach import require
from erv.tracking import lock_entries
from erv.tracking.patience import patient_requests, repeated

Locked = Mapping[str, Mapping[str, Any]]
_HEX = re.compile(r"[0-9a-f]{32}(\.dir)?")


@dataclass
class Node:
    """A node of the answer: a title, facts, checked links, and what it is made from."""

    title: str
    facts: list[str] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    children: list[Node] = field(default_factory=list)

    def walk(self) -> Iterator[Node]:
        """This node and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()

    def lines(self, indent: str = "") -> Iterator[str]:
        """The tree as text."""
        yield f"{indent}{self.title}"
        for fact in self.facts:
            yield f"{indent}  {fact}"
        for link in self.links:
            yield f"{indent}  {link.text()}"
        for child in self.children:
            yield from child.lines(indent + "    ")


class Provenance:
    """Answers lineage queries for one workspace and its servers."""

    def __init__(self, environment: Environment, settings: Settings, deep: bool = False) -> None:
        self._environment = environment
        self._name = settings.register_.model_name
        self._datasets, self._policies = settings.datasets, settings.compare.policies
        self._links = LinkChecker(environment, deep)
        self._unread = ""  # why the last download failed; empty if there is no such artifact
        if environment.mlflow_uri:
            require("MLflow", environment.mlflow_uri)
        self._client = lock_entries.client_of(environment) if environment.mlflow_uri else None

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
        version = self._version_or_none(plain)
        if version is not None:
            return self._of_version(version)
        clip = self._clip(plain)
        if clip is not None:
            return clip
        raise RegistryError(
            f"{target!r} is not a version or alias of {self._name}, a run id, an md5 or a known clip"
        )

    # --- model versions

    def _version_or_none(self, target: str) -> Any | None:
        if self._client is None:
            return None
        from mlflow.exceptions import MlflowException

        from erv.register.versions import get_version

        try:
            return get_version(self._client, self._name, target)
        except RegistryError:
            return None
        except MlflowException as error:
            text = self._environment.mask(" ".join(str(error).split()))[:300]
            raise RegistryError(f"MLflow at {self._environment.mlflow_uri}: {text}") from error

    def _of_version(self, version: Any) -> Node:
        from erv.register.versions import GATES_TAG, HASH_TAG, PATH_TAG, PUBLISH_RUN_TAG

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
            bundle = self._download(f"models:/{self._name}/{version.version}/{tags.get(PATH_TAG)}", folder)
            node.links.append(self._bundle_check(bundle))
            locks = self._pipeline_of(tags.get(PUBLISH_RUN_TAG), folder)
            try:
                lock = _entries(locks) if locks else {}
                lacks = "no entry of register in it" if lock else "not kept with the publication"
            except PipelineError as error:
                lock, lacks = {}, str(error).partition(": ")[2].partition(";")[0]
            producer = next((n for n in lock if n.partition("@")[0] == "register"), None)
            if producer is None:
                missing = None if self._unread else False
                node.links.append(Link("dvc.lock", missing, self._unread or lacks))
            else:
                if bundle is not None:
                    node.links.append(_lock_check(bundle, lock[producer]))
                node.children.append(self._stage(lock, producer, locks, set()))
        return node

    def _bundle_check(self, folder: Path | None) -> Link:
        from erv.register.register import read_bundle

        if folder is None:
            missing = None if self._unread else False
            return Link("bundle", missing, self._unread or "its files are not in the artifact store")
        try:
            bundle = read_bundle(folder)
        except RegistryError as error:
            return Link("bundle", False, str(error))
        return Link("bundle", True, f"{len(bundle.files)} files in the artifact store, hashes equal")

    def _pipeline_of(self, run_id: str | None, folder: str) -> Path | None:
        """The folder with the pipeline files stored with a run."""
        if run_id is None:
            return None
        return self._download(f"runs:/{run_id}/{lock_entries.LOCK_ARTIFACT_FOLDER}", folder)

    def _download(self, uri: str, folder: str) -> Path | None:
        """Artifacts in a temporary folder, or None.

        `self._unread` says why they can't be read now, and is empty if they don't exist: a full disk, here or
        at the server, or an outage doesn't break a lineage.
        """
        import mlflow
        from mlflow.exceptions import MlflowException

        where = {"artifact_uri": uri, "tracking_uri": self._environment.mlflow_uri}
        self._unread = ""
        try:
            with patient_requests():
                if not repeated(lambda: mlflow.artifacts.list_artifacts(**where)):
                    return None
                fetch = partial(mlflow.artifacts.download_artifacts, **where, dst_path=folder)
                return Path(repeated(fetch))
        except (MlflowException, OSError) as error:
            if getattr(error, "error_code", None) != "RESOURCE_DOES_NOT_EXIST":
                reason = full_disk(error) or " ".join(str(error).split())[:200]
                self._unread = self._environment.mask(f"can't be read now: {reason}")
        return None

    # --- stages

    def _stage(self, lock: Locked, name: str, locks: Path | None, seen: set[str]) -> Node:
        """A stage with its outputs verified, and below it what it was made from; each stage appears once."""
        entry = lock[name]
        node = Node(f"{name}  lock entry {lock_entries.entry_hash(entry)[:12]}")
        if name in seen:
            node.facts.append("see above")
            return node
        seen.add(name)
        runs = self._runs_of(entry)
        node.facts.append(f"MLflow run {', '.join(runs)}" if runs else "no MLflow run on this server")
        for out in entry.get("outs") or []:
            node.links.append(self._links.output(out["path"], out.get("md5")))
        producers: set[str] = set()
        for dependency in entry.get("deps") or []:
            path = dependency["path"]
            made_by = _producers(lock, path)
            producers |= made_by
            if path.endswith(".lock.json") and not made_by:
                node.links.append(self._links.source(path, dependency.get("md5"), _find_lock(path, locks)))
            elif len(made_by) == 1:
                node.links += _link(lock, made_by, dependency)
        node.children = [self._stage(lock, up, locks, seen) for up in sorted(producers)]
        return node

    def _runs_of(self, entry: Mapping[str, Any]) -> list[str]:
        from mlflow.exceptions import MlflowException

        try:
            return [str(run.info.run_id) for run in lock_entries.find_runs(self._environment, entry)[:3]]
        except (MlflowException, OSError):
            return []

    # --- runs

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
            locks = self._pipeline_of(run_id, folder) or self._pipeline_of(parent, folder)
            lock = _entries(locks or Path())
            digest = tags.get(lock_entries.ENTRY_TAG)
            mine = [name for name, entry in lock.items() if lock_entries.entry_hash(entry) == digest]
            seen: set[str] = set()
            if digest and not mine:
                node.facts.append(f"lock entry {digest[:12]} is in no available dvc.lock")
            if tags.get("erv.kind") in ("flow", "publish"):
                if not lock:
                    node.links.append(Link("dvc.lock", False, "no entries; run `erv run`"))
                mine = [n for n in lock if not _consumers(lock, n)]
            node.children = [self._stage(lock, name, locks, seen) for name in mine]
            node.facts += self._came_of(lock, mine) if digest else []
        return node

    # --- contents

    def _content(self, md5: str) -> Node:
        lock = _entries(Path())
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
        node.children.append(self._stage(lock, name, None, set()))
        return node

    def _came_of(self, lock: Locked, names: list[str]) -> list[str]:
        """Sentences about what was made from the outputs of stages: other stages, model versions."""
        below: set[str] = set()
        pending = list(names)
        while pending:
            for consumer in _consumers(lock, pending.pop()):
                if consumer not in below:
                    below.add(consumer)
                    pending.append(consumer)
        facts = [f"used by {', '.join(sorted(below))}"] if below else []
        md5s = {str(out.get("md5")) for name in names for out in lock[name].get("outs") or []}
        return facts + [f"in {self._name} version {number}" for number in self._versions_with(md5s)]

    def _versions_with(self, md5s: set[str]) -> list[str]:
        from mlflow.exceptions import MlflowException

        from erv.register.versions import PUBLISH_RUN_TAG, versions

        found: list[str] = []
        try:
            for version in versions(self._client, self._name) if self._client else []:
                with tempfile.TemporaryDirectory() as folder:
                    locks = self._pipeline_of(version.tags.get(PUBLISH_RUN_TAG), folder)
                    try:
                        lock = _entries(locks) if locks else {}
                    except PipelineError:  # `erv lineage` of that version says so
                        continue
                    outs = {str(o.get("md5")) for e in lock.values() for o in e.get("outs") or []}
                    if md5s & outs:
                        found.append(str(version.version))
        except MlflowException:
            return found
        return found

    # --- clips

    def _clip(self, target: str) -> Node | None:
        """A clip: its row in the manifest, what was made from it, what the policies said of it."""
        lock = _entries(Path())
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
            makers = sorted(_producers(lock, manifest))
            if not makers:
                child.links.append(Link("dvc.lock", False, f"no entry that wrote {manifest}; run `erv run`"))
            child.facts += self._came_of(lock, makers)
            child.children = [self._stage(lock, name, None, set()) for name in makers]
            node.children.append(child)
        for row in excluded:
            title = f"{row['dataset']}/{row['clip_id']}  left out by ingest"
            node.children.append(Node(title, [row["reason"]]))
        for dataset in absent:
            node.children.append(Node(f"{target}  listed by {dataset}, but not in its source"))
        return node


def brief(node: Node) -> list[str]:
    """The titles of the tree, each node once, and how many links hold; for the end of a flow run."""
    return [*_titles(node, ""), summary(node)]


def _titles(node: Node, indent: str) -> Iterator[str]:
    yield f"{indent}{node.title}"
    for child in node.children:
        if "see above" not in child.facts:
            yield from _titles(child, indent + "  ")


def summary(node: Node) -> str:
    """`57 links checked, 0 broken, 2 not verifiable from here`, or that there was none to check."""
    links = [link for part in node.walk() for link in part.links]
    if not links:
        return "no links checked: nothing here says what it was made from"
    unknown = sum(link.ok is None for link in links)
    return f"{len(links)} links checked, {len(broken(node))} broken, {unknown} not verifiable from here"


def broken(node: Node) -> list[Link]:
    """The links that do not hold."""
    return [check for part in node.walk() for check in part.links if check.ok is False]


def _gate_lines(text: str | None) -> list[str]:
    import json

    from erv.register.gates import Verdict

    verdicts = [Verdict(**gate) for gate in json.loads(text)] if text else []
    return [f"gate {'holds' if verdict.passed else 'fails'}: {verdict.text()}" for verdict in verdicts]


def _entries(folder: Path) -> Locked:
    """The lock entries of a folder, without those of stages that its `dvc.yaml` no longer has."""
    return of_these_stages(read_lock_entries(folder / "dvc.lock"), folder)


def _overlap(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


def _producers(lock: Locked, path: str) -> set[str]:
    """The stages that write `path`, or something in it or around it."""
    return {n for n, e in lock.items() for out in e.get("outs") or [] if _overlap(out["path"], path)}


def _consumers(lock: Locked, name: str) -> set[str]:
    outs = [out["path"] for out in lock[name].get("outs") or []]
    return {
        n
        for n, e in lock.items()
        if n != name and any(_overlap(d["path"], out) for d in e.get("deps") or [] for out in outs)
    }


def _link(lock: Locked, made_by: set[str], dependency: Mapping[str, Any]) -> list[Link]:
    """A broken link if what a stage read is not what its producer's entry says it wrote."""
    outs = [out for name in made_by for out in lock[name].get("outs") or []]
    same = [out for out in outs if out["path"] == dependency["path"]]
    if not same or same[0].get("md5") == dependency.get("md5"):
        return []
    detail = f"read as {dependency.get('md5')}, but {sorted(made_by)[0]} wrote {same[0].get('md5')}"
    return [Link(dependency["path"], False, f"{detail}; run `erv run`")]


def _lock_check(bundle: Path, entry: Mapping[str, Any]) -> Link:
    """Whether the bundle of a version is the output of the entry that was kept with it."""
    digest = content_digest(bundle)
    written = [str(out.get("md5")) for out in entry.get("outs") or []]
    if digest in written:
        return Link("dvc.lock", True, f"register's output in it is this bundle, md5 {digest}")
    return Link("dvc.lock", False, f"in it register wrote {', '.join(written)}, but the bundle is {digest}")


def _find_lock(path: str, locks: Path | None) -> Path | None:
    """The lock of a source: the copy stored with a run, or else the workspace's."""
    for candidate in (locks / Path(path).name if locks else None, Path(path)):
        if candidate is not None and candidate.is_file():
            return candidate
    return None
