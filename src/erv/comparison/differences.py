"""Where the lock entries of two states differ: what their stages read and wrote."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from erv.accept.accept import is_code
from erv.lineage.entries import Locked, producers

_Digests = dict[str, str | None]  # by stage


@dataclass(frozen=True)
class Difference:
    """A file or folder that is not the same on both sides.

    Attributes:
        path: as in `dvc.yaml`.
        stages: those for which it differs; a stage that only one side has is among them if it has another
            content than all stages of the other side.
        partly: whether it is the same for other stages.
    """

    path: str
    stages: tuple[str, ...]
    partly: bool = False

    def text(self) -> str:
        """`src/erv/files.py`, or `src/erv/files.py (for sft)` if it is the same for others."""
        return f"{self.path} (for {', '.join(self.stages)})" if self.partly else self.path


def differing_code(before: Locked, now: Locked) -> tuple[Difference, ...]:
    """The code and the versions of libraries that stages read."""
    return tuple(item for item in _inputs(before, now) if is_code(item.path))


def differing_data(before: Locked, now: Locked) -> tuple[Difference, ...]:
    """What stages wrote, and what they read that is neither code nor written by a stage: prompts, locks."""
    read = (item for item in _inputs(before, now) if not is_code(item.path))
    return tuple(sorted([*read, *_differing(before, now, "outs")], key=lambda item: item.path))


def _inputs(before: Locked, now: Locked) -> Iterable[Difference]:
    """The dependencies that differ, without the outputs of stages."""
    for item in _differing(before, now, "deps"):
        if not producers(before, item.path) and not producers(now, item.path):
            yield item


def _differing(before: Locked, now: Locked, kind: str) -> list[Difference]:
    sides = _by_path(before, kind), _by_path(now, kind)
    found = []
    for path in sorted({*sides[0], *sides[1]}):
        one, other = (side.get(path, {}) for side in sides)
        stages = [name for name in dict.fromkeys([*other, *one]) if _differs(name, one, other)]
        if stages:
            found.append(Difference(path, tuple(stages), len(stages) < len({*one, *other})))
    return found


def _differs(stage: str, one: _Digests, other: _Digests) -> bool:
    if stage in one and stage in other:
        return one[stage] != other[stage]
    return one[stage] not in other.values() if stage in one else other[stage] not in one.values()


def _by_path(lock: Locked, kind: str) -> dict[str, _Digests]:
    found: dict[str, _Digests] = {}
    for name, entry in lock.items():
        for item in entry.get(kind) or []:
            found.setdefault(item["path"], {})[name] = item.get("md5")
    return found
