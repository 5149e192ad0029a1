"""How the entries of a `dvc.lock` hang together: which stage wrote what another read."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from erv.accept.accept import is_code
from erv.lineage.links import Link
from erv.pipeline import in_use, of_bundle, overlap, read_lock_entries

Locked = Mapping[str, Mapping[str, Any]]


def entries_in(folder: Path) -> Locked:
    """The lock entries of a folder, without what stages left over that are no longer in its `dvc.yaml`."""
    return in_use(read_lock_entries(folder / "dvc.lock"), folder)


def bundle_in(folder: Path) -> Locked:
    """The lock entries of a folder that its candidate bundle came from."""
    return of_bundle(read_lock_entries(folder / "dvc.lock"))


def producers(lock: Locked, path: str) -> set[str]:
    """The stages that write `path`, or something in it or around it."""
    return {n for n, e in lock.items() for out in e.get("outs") or [] if overlap(out["path"], path)}


def consumers(lock: Locked, name: str) -> set[str]:
    """The other stages that read an output of `name`."""
    outs = [out["path"] for out in lock[name].get("outs") or []]
    return {
        n
        for n, e in lock.items()
        if n != name and any(overlap(d["path"], out) for d in e.get("deps") or [] for out in outs)
    }


def below(lock: Locked, names: Iterable[str]) -> set[str]:
    """The stages that outputs of `names` go into, directly or through others."""
    found: set[str] = set()
    pending = list(names)
    while pending:
        for consumer in consumers(lock, pending.pop()):
            if consumer not in found:
                found.add(consumer)
                pending.append(consumer)
    return found


def differing(lock: Locked, made_by: set[str], dependency: Mapping[str, Any]) -> list[Link]:
    """A broken link if what a stage read is not what its producer's entry says it wrote."""
    outs = [out for name in made_by for out in lock[name].get("outs") or []]
    same = [out for out in outs if out["path"] == dependency["path"]]
    if not same or same[0].get("md5") == dependency.get("md5"):
        return []
    detail = f"read as {dependency.get('md5')}, but {sorted(made_by)[0]} wrote {same[0].get('md5')}"
    return [Link(dependency["path"], False, f"{detail}; run `erv run`")]


def lock_of_source(path: str, locks: Path | None) -> Path | None:
    """The lock of a source: the copy stored with a run, or else the workspace's."""
    for candidate in (locks / Path(path).name if locks else None, Path(path)):
        if candidate is not None and candidate.is_file():
            return candidate
    return None


def external_sources(lock: Locked, name: str) -> list[str]:
    """Sentences about the policies from elsewhere that a stage `arms` recorded, with DVC's hash of each."""
    if name.partition("@")[0] != "arms":
        return []
    return [
        f"external source {item['path']}  md5 {item.get('md5')}"
        for item in lock[name].get("deps") or []
        if not is_code(item["path"]) and not producers(lock, item["path"])
    ]


def outputs_of(lock: Locked, names: Collection[str] | None = None) -> set[tuple[str, str]]:
    """Path and md5 of every output of these stages, by default of all."""
    chosen = lock if names is None else names
    return {(out["path"], str(out.get("md5"))) for name in chosen for out in lock[name].get("outs") or []}
