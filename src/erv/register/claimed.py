"""What a folder's `lineage.json` claims of its origin: `claims` of the versions that are imported from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_KINDS = {
    "model": (str, "a text"),
    "bundle": (str, "a text"),
    "commit": (str, "a text"),
    "dirty": (bool, "true or false"),
    "started_by": (str, "a text"),
}
_KEPT = (*_KINDS, "stages", "claims")
_DEEPEST = 20  # how often a version was exported and imported again


def claims_in(record: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a record, in which `misfits` finds nothing."""
    return {key: record[key] for key in _KEPT if key in record}


def misfits(record: Any, depth: int = 0) -> Iterator[str]:
    """What is not as `schemas/version.json` has it, as far as it is kept.

    Args:
        record: from elsewhere.
        depth: how many records it lies in.
    """
    if not isinstance(record, dict):
        yield "it is not an object"
        return
    if depth > _DEEPEST:
        yield f"it is nested more than {_DEEPEST} deep"
        return
    for key, (kind, words) in _KINDS.items():
        if not isinstance(record.get(key), kind | None):
            yield f"{key} is not {words}"
    yield from _misfits_of_stages(record.get("stages", {}))
    if record.get("claims") is not None:
        yield from (f"in claims, {fault}" for fault in misfits(record["claims"], depth + 1))


def _misfits_of_stages(stages: Any) -> Iterator[str]:
    if not isinstance(stages, dict):
        yield "stages is not an object"
        return
    for name, stage in stages.items():
        for part in ("deps", "outs"):
            if not isinstance(stage, dict) or not isinstance(stage.get(part), dict):
                yield f"{part} of stage {name} is not an object"
