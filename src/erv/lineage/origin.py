"""Who started a run at which commit, from its tags, and the parameters of a stage, from its lock entry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from erv.tracking.names import flatten
from erv.tracking.origin import COMMIT_TAG, DIRTY_TAG, FLOW_TAG, STARTED_BY_TAG, USER_TAG


def origin_values(tags: Mapping[str, str]) -> dict[str, Any]:
    """Commit, dirty flag, user and Prefect flow run of a run; None for what it doesn't say."""
    dirty = tags.get(DIRTY_TAG)
    user = tags.get(STARTED_BY_TAG) or tags.get(USER_TAG)  # older runs have the login alone
    return {
        "commit": tags.get(COMMIT_TAG),
        "dirty": None if dirty is None else dirty == "true",
        "started_by": None if user == "unknown" else user,
        "prefect_flow_run": tags.get(FLOW_TAG),
    }


def origin_facts(values: Mapping[str, Any]) -> list[str]:
    """The same as sentences; a value that is missing says nothing."""
    facts = []
    if values.get("commit"):
        state = {True: "with changes that are not in it", False: "without other changes"}
        known = state.get(values.get("dirty"))  # type: ignore[arg-type]
        facts.append(f"git commit {values['commit']}" + (f", {known}" if known else ""))
    if values.get("started_by"):
        facts.append(f"started by {values['started_by']}")
    if values.get("prefect_flow_run"):
        facts.append(f"Prefect flow run {values['prefect_flow_run']}")
    return facts


def parameters(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that a lock entry says decided the result, by dotted name."""
    found: dict[str, Any] = {}
    for values in (entry.get("params") or {}).values():
        found |= flatten(values or {})
    return dict(sorted(found.items()))


def own_parameters(stage: str, values: Mapping[str, Any]) -> str:
    """Those of a stage's own section, of its variant and the seed, in a line; the others are in `--json`."""
    group, _, item = stage.partition("@")
    sections = ("seed", f"{group}.", f"variants.{item}.")
    shown = {name: value for name, value in values.items() if name.startswith(sections)}
    return ", ".join(f"{name} {_plain(value)}" for name, value in shown.items())


def _plain(value: Any) -> str:
    """A value as YAML writes it."""
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    return str(value)
