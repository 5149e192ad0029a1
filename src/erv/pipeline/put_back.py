"""What a dependency is once DVC has put back outputs that it has in its cache. Nothing is put back here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def hash_once_back(dep: Any, outs: Sequence[Any]) -> str | None:
    """DVC's hash of a dependency once some outputs are what `dvc.lock` names; None if it is missing then.

    Args:
        dep: a dependency of DVC, file or folder.
        outs: outputs of DVC that are the same path, above it or below it; its cache has them.
    """
    below = {}
    for out in outs:
        inside = _inside(out, dep)
        if inside is None:  # the output is a folder that holds the dependency
            held = out.get_obj(filter_info=dep.fs_path)
            return held and str(held.oid)
        if not inside:
            return str(out.hash_info.value)
        below[inside] = out
    return _folder_hash(dep, below)


def touches(dep: Any, out: Any) -> bool:
    """Whether a dependency and an output are the same path, or one is inside the other."""
    return _inside(out, dep) is not None or _inside(dep, out) is not None


def _inside(one: Any, other: Any) -> tuple[str, ...] | None:
    """The parts of the path of one below that of the other; None if it is not inside."""
    path, root = Path(one.fs_path), Path(other.fs_path)
    return path.relative_to(root).parts if path.is_relative_to(root) else None


def _folder_hash(dep: Any, below: dict[tuple[str, ...], Any]) -> str:
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.tree import Tree

    listing: Any = Tree()  # type: ignore[no-untyped-call]  # of dvc_data
    now: Any
    if dep.exists:
        _odb, _meta, now = build(
            dep.local_cache, dep.fs_path, dep.fs, dep.hash_name, ignore=dep.dvcignore, dry_run=True
        )
        for key, meta, info in now:
            if not any(key[: len(inside)] == inside for inside in below):
                listing.add(key, meta, info)
    for inside, out in below.items():
        if out.hash_info.isdir:
            for key, meta, info in out.get_obj():
                listing.add((*inside, *key), meta, info)
        else:
            listing.add(inside, None, out.hash_info)
    listing.digest()
    return str(listing.oid)
