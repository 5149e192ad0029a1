"""What the entries of a `dvc.lock` were made from: which of them wrote what another one read.

Path and hash decide, and the parameters that an entry keeps. The `params.yaml` and `dvc.yaml` of today say
nothing about it: they may have been edited since, and DVC keeps the entries of stages that are gone.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from erv.pipeline.leftovers import Locked, of_these_stages

Entry = Mapping[str, Any]
Item = Mapping[str, Any]  # a dependency or output of an entry
Files = Mapping[str, str]  # hash by workspace path
Listing = Callable[[str], Files | None]

MANIFESTS = "data/manifest"
QUARANTINES = "data/quarantine"
_MOST_TRIES = (
    2**15
)  # of which stages a folder was filled by; DVC's graphs have a dozen, and few are left over


@dataclass(frozen=True)
class Input:
    """What a stage read.

    Attributes:
        path: file or folder.
        md5: DVC's hash of it.
        makers: the stages that wrote it, sorted; those that may have, where `as_written` isn't True.
        as_written: whether it was what they wrote. None if that can't be told, or no stage wrote it.
    """

    path: str
    md5: str | None
    makers: tuple[str, ...] = ()
    as_written: bool | None = None


def _unlisted(_md5: str) -> None:
    return None


def inputs_of(lock: Locked, name: str, listing: Listing = _unlisted) -> tuple[Input, ...]:
    """What a stage read, in the order of its entry.

    A folder that several stages fill is what those wrote whose outputs together have its hash. The others are
    left over from another run.

    Args:
        lock: the entries.
        name: of the stage.
        listing: hash by path in a folder of this hash, or None if it can't be read.
    """
    return _Entries(lock).inputs(name, listing)


def reader_of(lock: Locked, listing: Listing = _unlisted) -> Callable[[str], tuple[Input, ...]]:
    """`inputs_of` for many stages of one lock."""
    entries = _Entries(lock)
    return lambda name: entries.inputs(name, listing)


def ancestors(lock: Locked, names: Iterable[str]) -> dict[str, Entry]:
    """The entries of these stages and of all that they came from, in the order of the lock.

    Where a stage read something else than the lock says was written, whoever may have written it counts.

    Args:
        lock: the entries.
        names: of stages in it.
    """
    entries, found, pending = _Entries(lock), set[str](), list(names)
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += [maker for item in entries.inputs(name, _unlisted) for maker in item.makers]
            pending += entries.of_data_sets(name)
    return {name: entry for name, entry in lock.items() if name in found}


def of_bundle(lock: Locked) -> dict[str, Entry]:
    """The entries that the candidate bundle came from; all if none of them is of `register`."""
    name = registered(lock)
    return dict(lock) if name is None else ancestors(lock, [name])


def in_use(lock: Locked, folder: Path = Path()) -> dict[str, Entry]:
    """The entries of the stages that the `dvc.yaml` beside the lock still has, and what they came from.

    Args:
        lock: the entries.
        folder: as for `of_these_stages`.
    """
    return ancestors(lock, of_these_stages(lock, folder))


def registered(lock: Locked) -> str | None:
    """The stage that wrote the candidate bundle, or None."""
    return next((name for name in lock if name.partition("@")[0] == "register"), None)


def digest_of_files(path: str, files: Files) -> str:
    """DVC's hash of a path with these files, as `erv.files.content_digest`."""
    if path in files:
        return files[path]
    entries = [{"md5": files[name], "relpath": name.removeprefix(f"{path}/")} for name in files]
    entries.sort(key=lambda entry: entry["relpath"])
    listing = json.dumps(entries, sort_keys=True).encode("utf-8")
    return hashlib.md5(listing, usedforsecurity=False).hexdigest() + ".dir"


class _Entries:
    """The entries of a lock, and what was written below each path."""

    def __init__(self, lock: Locked) -> None:
        self._lock = lock
        self._below: dict[str, list[tuple[str, Item]]] = {}
        for name, entry in lock.items():
            for out in entry.get("outs") or []:
                for path in (out["path"], *_folders_of(out["path"])):
                    self._below.setdefault(path, []).append((name, out))

    def inputs(self, name: str, listing: Listing) -> tuple[Input, ...]:
        found = [self._input(name, item, listing) for item in self._lock[name].get("deps") or []]
        away: set[str] = set()
        for item in found:
            if item.as_written:
                away |= self._writers(item.path).keys() - {name, *item.makers}
        # What can't be listed was not filled by a stage that read what the folder beside it doesn't have.
        return tuple(
            replace(item, makers=tuple(maker for maker in item.makers if not self._reads_of(maker, away)))
            if item.as_written is None and away
            else item
            for item in found
        )

    def of_data_sets(self, name: str) -> Iterator[str]:
        """The stages that wrote the manifests of the data sets in a stage's roles, and what left clips out.

        `grpo` reads them without naming them as dependencies, and no stage names what could not be decoded.
        """
        for dataset in sorted(named_in_parameters(self._lock[name], "roles")):
            yield from self._writers(f"{MANIFESTS}/{dataset}.parquet")
        for out in self._lock[name].get("outs") or []:
            path = PurePosixPath(out["path"])
            if str(path.parent) != MANIFESTS:
                continue
            for maker in self._writers(f"{QUARANTINES}/{path.name}"):
                read = {item["path"]: item.get("md5") for item in self._lock[maker].get("deps") or []}
                if read.get(out["path"]) == out.get("md5"):
                    yield maker

    def _input(self, name: str, item: Item, listing: Listing) -> Input:
        read = Input(item["path"], item.get("md5"))
        writers = {maker: outs for maker, outs in self._writers(read.path).items() if maker != name}
        exact = {n: out.get("md5") for n, outs in writers.items() for out in outs if out["path"] == read.path}
        if exact:
            same = sorted(maker for maker, md5 in exact.items() if md5 == read.md5)
            return replace(read, makers=tuple(same or sorted(exact)), as_written=bool(same))
        files = {maker: _files(outs, read.path, listing) for maker, outs in writers.items()}
        known = {maker: found for maker, found in files.items() if found is not None}
        if len(known) < len(files):
            return replace(read, makers=tuple(sorted(files)))
        for chosen in _choices(sorted(known)):
            if digest_of_files(read.path, _together(known[maker] for maker in chosen)) == read.md5:
                return replace(read, makers=chosen, as_written=True)
        told = known and 2 ** len(known) <= _MOST_TRIES
        return replace(read, makers=tuple(sorted(known)), as_written=False if told else None)

    def _writers(self, path: str) -> dict[str, list[Item]]:
        """The outputs by stage that are `path`, or lie in it or around it."""
        found: dict[str, list[Item]] = {}
        around = (
            pair for up in _folders_of(path) for pair in self._below.get(up, ()) if pair[1]["path"] == up
        )
        for name, out in (*self._below.get(path, ()), *around):
            found.setdefault(name, []).append(out)
        return found

    def _reads_of(self, name: str, makers: set[str]) -> bool:
        """Whether a stage read an output of one of these, and not only a folder with it."""
        outs = {out["path"] for maker in makers for out in self._lock[maker].get("outs") or []}
        paths = [item["path"] for item in self._lock[name].get("deps") or []]
        return any(not outs.isdisjoint((path, *_folders_of(path))) for path in paths)


def _choices(names: list[str]) -> Iterator[tuple[str, ...]]:
    """All of them, then all but one, and so on down to none."""
    every = (chosen for size in range(len(names), -1, -1) for chosen in itertools.combinations(names, size))
    return itertools.islice(every, _MOST_TRIES)


def _files(outs: Iterable[Item], path: str, listing: Listing) -> dict[str, str] | None:
    """The files of outputs that are `path` or lie in it; None if a folder can't be listed."""
    found: dict[str, str] = {}
    for out in outs:
        md5 = str(out.get("md5"))
        if not md5.endswith(".dir"):
            found[out["path"]] = md5
            continue
        listed = listing(md5)
        if listed is None:
            return None
        found |= {f"{out['path']}/{name}": of_file for name, of_file in listed.items()}
    return {name: md5 for name, md5 in found.items() if name == path or name.startswith(f"{path}/")}


def _together(parts: Iterable[Files]) -> dict[str, str]:
    return {path: md5 for part in parts for path, md5 in part.items()}


@functools.lru_cache(maxsize=4096)  # the same few paths are in all locks
def _folders_of(path: str) -> tuple[str, ...]:
    """The folders around a path, without that of the workspace."""
    return tuple(str(folder) for folder in PurePosixPath(path).parents if str(folder) not in (".", "/"))


def named_in_parameters(entry: Entry, section: str | None = None) -> set[str]:
    """The texts among the parameters that an entry keeps.

    Args:
        entry: of the lock.
        section: only below this one: `roles` has `roles.train`, too.
    """
    return {
        text
        for values in (entry.get("params") or {}).values()
        for key, value in (values or {}).items()
        if section in (None, key.partition(".")[0])
        for text in _texts(value)
    }


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)
