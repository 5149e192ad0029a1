"""The lineage of MLflow runs, and what is found through them: Prefect flow runs and git commits."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from erv.environment import Environment
from erv.lineage.artifacts import Artifacts
from erv.lineage.entries import Locked, bundle_in, consumers, entries_in
from erv.lineage.imported import IMPORTED
from erv.lineage.links import Link
from erv.lineage.node import Node
from erv.lineage.origin import origin_facts, origin_values
from erv.lineage.stages import StageTrees
from erv.pipeline import Acceptance, behind, read_accepted
from erv.tracking import lock_entries
from erv.tracking.description import EXPERIMENT, FLOW, KIND_TAG, TRIAL
from erv.tracking.origin import COMMIT_TAG, FLOW_TAG
from erv.tracking.rest import Refused, Run
from erv.tracking.run_ids import run_beginning

_MOST_RUNS = 1000
PARENT_TAG = "mlflow.parentRunId"
_PUBLISH = "publish"
_WHOLE = (FLOW, EXPERIMENT, TRIAL, _PUBLISH)  # kinds of runs that stand for several stages


class Runs:
    """Finds runs of one MLflow server, deleted ones too.

    Args:
        environment: where MLflow is.
        artifacts: of that server.
        stages: trees of stages.
        came_of: sentences about what was made from the outputs of stages.
        imported: whether a run published a version that was imported from elsewhere.
    """

    def __init__(
        self,
        environment: Environment,
        artifacts: Artifacts,
        stages: StageTrees,
        came_of: Callable[[Locked, list[str]], list[str]],
        imported: Callable[[str], bool],
    ) -> None:
        self._environment = environment
        self._artifacts = artifacts
        self._stages = stages
        self._came_of = came_of
        self._imported = imported

    def run(self, run_id: str) -> Node | None:
        """The lineage of a run; None if the server has none of this id.

        Raises:
            OSError: MLflow can't be reached, or refuses.
        """
        if self._environment.mlflow_uri is None:
            return None
        try:
            run = lock_entries.server_of(self._environment).get_run(run_id)
        except Refused as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return self._of(run)

    def beginning(self, digits: str) -> Node | None:
        """The lineage of the run whose id begins with these 8 or more digits; None if none does.

        Raises:
            RegistryError: several do.
            OSError: MLflow can't be reached, or refuses.
        """
        run = run_beginning(self._environment, digits)
        return None if run is None else self._of(run)

    def _of(self, run: Run) -> Node:
        node = _node(run)
        with tempfile.TemporaryDirectory() as folder:
            locks, unread = self._kept(run, folder)
            entries = bundle_in if run.data.tags.get(KIND_TAG) == _PUBLISH else entries_in
            lock, accepted = entries(locks or Path()), read_accepted(locks or Path())
            digest = run.data.tags.get(lock_entries.ENTRY_TAG)
            mine = [name for name, entry in lock.items() if digest in _digests(entry, accepted)]
            if digest and not mine:
                node.facts.append(f"lock entry {digest[:12]} is in no available dvc.lock")
            if unread and not mine:
                node.links.append(Link("dvc.lock", None, unread))
            elif run.data.tags.get(KIND_TAG) in _WHOLE and locks is None:
                self._without_lock(run, node)
            elif run.data.tags.get(KIND_TAG) in _WHOLE:
                mine = [n for n in lock if not consumers(lock, n)]
            seen: set[str] = set()
            node.children += [self._stages.node(lock, name, locks, seen) for name in mine]
            node.facts += self._came_of(lock, mine) if digest else []
        return node

    def _kept(self, run: Run, folder: str) -> tuple[Path | None, str]:
        """The folder with the pipeline files of a run or of its flow run, and why they can't be read."""
        unread = ""
        for run_id in filter(None, (run.info.run_id, run.data.tags.get(PARENT_TAG))):
            locks = self._artifacts.pipeline_of(run_id, folder)
            if locks is not None:
                return locks, ""
            unread = unread or self._artifacts.unread
        return None, unread

    def _without_lock(self, run: Run, node: Node) -> None:
        """Says of a run that stands for several stages that none of their entries were kept with it.

        The workspace's `dvc.lock` is no substitute: it may have come from anywhere since.
        """
        run_id = run.info.run_id
        if self._imported(run_id):
            node.facts.append(IMPORTED)
            return
        # What is published without its entries is broken; what failed early never had any.
        kind = run.data.tags[KIND_TAG]
        lost = kind != EXPERIMENT and run.info.status == "FINISHED"
        node.links.append(Link("dvc.lock", False if lost else None, "not kept with this run"))
        parts = self._tagged(PARENT_TAG, f"= '{run_id}'")
        if parts:
            node.facts.append("below are the runs that belong to it")
        node.children = [_node(part) for part in parts]

    def flow(self, flow_run_id: str) -> Node | None:
        """The lineage of a Prefect flow run; None if no MLflow run belongs to it."""
        runs = self._tagged(FLOW_TAG, f"= '{flow_run_id}'")
        if not runs:
            return None
        node = Node(f"Prefect flow run {flow_run_id}", kind="flow")
        node.values = {"prefect_flow_run": flow_run_id, "mlflow_runs": [run.info.run_id for run in runs]}
        whole = [run for run in runs if run.data.tags.get(KIND_TAG) == FLOW]
        for run in whole or runs:
            found = self.run(run.info.run_id)
            if found is not None:
                node.children.append(found)
        if not whole:
            node.facts.append("its own MLflow run is missing; these are the runs of its stages")
        return node

    def commit(self, commit: str) -> Node | None:
        """What ran at a git commit, which may be abbreviated; None if nothing did."""
        condition = f"= '{commit}'" if len(commit) == 40 else f"LIKE '{commit}%'"
        runs = self._tagged(COMMIT_TAG, condition)
        if not runs:
            return None
        found = sorted({run.data.tags[COMMIT_TAG] for run in runs})
        node = Node(f"git commit {', '.join(found)}", kind="commit")
        if len(found) > 1:
            node.facts.append(f"{commit} is the beginning of {len(found)} commits; name more of it")
        dirty = sum(bool(origin_values(run.data.tags)["dirty"]) for run in runs)
        node.facts.append(f"{len(runs)} runs, {dirty} of them with changes that are not in the commit")
        node.values = {"commits": found, "mlflow_runs": [run.info.run_id for run in runs]}
        node.children = [_node(run) for run in runs]
        return node

    def _tagged(self, tag: str, condition: str) -> Sequence[Run]:
        query = f"tags.`{tag}` {condition}"
        return lock_entries.search(self._environment, query, limit=_MOST_RUNS, deleted=True)


def _digests(entry: Mapping[str, Any], accepted: Sequence[Acceptance]) -> set[str]:
    """The hash of an entry, and those of the entries whose results were kept for it."""
    digest = lock_entries.entry_hash(entry)
    return {digest, *(step.before for step in behind(digest, accepted))}


def is_flow_run(text: str) -> bool:
    """Whether a text has the form of a Prefect flow run's id: a UUID with dashes."""
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


def _node(run: Run) -> Node:
    tags = run.data.tags
    state = run.info.status + (", deleted" if run.info.lifecycle_stage == "deleted" else "")
    node = Node(f"MLflow run {run.info.run_id}  {run.info.run_name}, {state}", kind="run")
    origin = origin_values(tags)
    parent = tags.get(PARENT_TAG)
    node.facts += origin_facts(origin)
    if parent:
        node.facts.append(f"flow run {parent}")
    node.values = {
        "run_id": run.info.run_id,
        "name": run.info.run_name,
        "status": run.info.status,
        "deleted": run.info.lifecycle_stage == "deleted",
        "parent_run": parent,
        **origin,
        "parameters": dict(sorted(run.data.params.items())),
    }
    return node
