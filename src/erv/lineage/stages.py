"""The tree of a stage: its outputs verified, and below it the stages that it was made from."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from erv.environment import Environment
from erv.libraries import TAG
from erv.lineage.entries import Locked, external_sources, lock_of_source
from erv.lineage.inputs import given_facts, input_links, is_source
from erv.lineage.links import LinkChecker
from erv.lineage.node import ABOVE, Node
from erv.lineage.origin import origin_facts, origin_values, own_parameters, parameters
from erv.pipeline import Acceptance, behind, inputs_of, read_accepted, written_paths
from erv.tracking.lock_entries import entry_hash, find_runs
from erv.tracking.rest import Run


class StageTrees:
    """Trees of stages, for the servers of one workspace.

    Args:
        environment: where MLflow and the object store are.
        deep: read and hash large objects too, not only small ones.
    """

    def __init__(self, environment: Environment, deep: bool = False) -> None:
        self._environment = environment
        self._links = LinkChecker(environment, deep)

    def node(self, lock: Locked, name: str, locks: Path | None, seen: set[str]) -> Node:
        """A stage with its outputs verified, and below it what it was made from; each stage appears once."""
        entry = lock[name]
        node = Node(f"{name}  lock entry {entry_hash(entry)[:12]}", kind="stage")
        if name in seen:
            node.facts.append(ABOVE)
            return node
        seen.add(name)
        accepted = self._accepted(locks)
        runs, unread = self._runs_of(entry, accepted)
        node.facts += [str(step) for step in behind(entry_hash(entry), accepted)]
        ids = ", ".join(run.info.run_id for run in runs)
        node.facts.append(f"MLflow run {ids}" if runs else unread or "no MLflow run on this server")
        if not (runs or behind(entry_hash(entry), accepted)):
            node.links += self._links.made(name, entry, unread)
        known = parameters(entry)
        tags = runs[0].data.tags if runs else {}
        origin = origin_values(tags)
        node.values = {
            "stage": name,
            "lock_entry": entry_hash(entry),
            "command": entry.get("cmd"),
            "mlflow_runs": [run.info.run_id for run in runs],
            **origin,
            "parameters": known,
            "outputs": {out["path"]: out.get("md5") for out in entry.get("outs") or []},
        }
        node.facts += origin_facts(origin)
        node.facts += _wrapped("ran with other libraries than the locked ones: ", tags.get(TAG, ""))
        node.facts += _wrapped("parameters ", own_parameters(name, known))
        inputs = inputs_of(lock, name, self._links.listing)
        node.facts += [*external_sources(lock, name), *given_facts(lock, name, inputs)]
        for out in entry.get("outs") or []:
            node.links.append(self._links.output(out["path"], out.get("md5")))
        node.links += input_links(lock, name, inputs, written_paths(locks or Path()))
        for item in inputs:
            if is_source(item.path) and not item.makers:
                node.links.append(self._links.source(item.path, item.md5, lock_of_source(item.path, locks)))
        above = {maker for item in inputs for maker in item.makers}
        node.children = [self.node(lock, up, locks, seen) for up in sorted(above)]
        return node

    def _accepted(self, locks: Path | None) -> tuple[Acceptance, ...]:
        """The records kept with a run, then those of the workspace."""
        folders = [folder for folder in (locks, Path()) if folder is not None]
        return tuple(record for folder in folders for record in read_accepted(folder))

    def _runs_of(self, entry: Mapping[str, Any], accepted: Sequence[Acceptance]) -> tuple[list[Run], str]:
        """The newest runs of an entry, and why they can't be looked up: an outage breaks no lineage."""
        try:
            return find_runs(self._environment, entry, accepted)[:3], ""
        except OSError as error:
            reason = self._environment.mask(" ".join(str(error).split()))[:200]
            return [], f"its MLflow runs can't be looked up now: {reason}"


def _wrapped(head: str, text: str) -> list[str]:
    """A long fact in several lines; nothing for an empty one."""
    if not text:
        return []
    return textwrap.wrap(f"{head}{text}", 100, subsequent_indent="  ", break_on_hyphens=False)
