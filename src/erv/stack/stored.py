"""Whether DVC's remote already has everything that a push would store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from erv.environment import Environment
from erv.pipeline import in_use, read_lock_entries
from erv.stack.dvc_remote import REMOTE, default_remote
from erv.storage.store import Store, open_store

_OBJECTS, _RUNS = "files/md5", "runs"


def all_stored(environment: Environment) -> bool:
    """Whether our remote has every output that `dvc.lock` names, and every entry of DVC's run cache.

    `dvc push` takes two seconds to find that out, and sends the whole run cache again each time. Here, two
    listings tell. Whatever can't be told from them is left to `dvc push`: another default remote, or a
    listing of a folder that is not in the cache.

    Raises:
        PipelineError: `dvc.lock` is damaged.
        StackError: a configuration file of DVC is damaged.
        StorageError: the store can't be reached.
    """
    if not environment.has_storage or default_remote(environment.workspace / ".dvc") != REMOTE:
        return False
    from dvc.repo import Repo

    with Repo(str(environment.workspace)) as repo:
        objects, runs = Path(str(repo.cache.local.path)), Path(str(repo.cache.legacy.path)) / _RUNS
    store = open_store(environment)
    remote = _listing(store, environment, _OBJECTS)
    locked = in_use(read_lock_entries(environment.workspace / "dvc.lock"), environment.workspace)
    try:
        wanted = {path: size for entry in locked.values() for path, size in _needed(entry, objects)}
    except (OSError, ValueError, LookupError, TypeError):
        return False
    if any(path not in remote or size not in (None, remote[path]) for path, size in wanted.items()):
        return False
    kept = {path.relative_to(runs).as_posix() for path in runs.rglob("*") if path.is_file()}
    return kept <= _listing(store, environment, _RUNS).keys()


def _listing(store: Store, environment: Environment, prefix: str) -> dict[str, int]:
    """Size by path below a prefix of the remote."""
    found = store.list(f"s3://{environment.dvc_bucket}/{prefix}")
    return {info.key.removeprefix(f"{prefix}/"): info.size for info in found}


def _needed(entry: Mapping[str, Any], objects: Path) -> Iterator[tuple[str, int | None]]:
    """The objects of a lock entry's outputs, with their sizes as far as they are known."""
    for out in entry.get("outs") or []:
        md5 = str(out["md5"])
        path = f"{md5[:2]}/{md5[2:]}"
        if not md5.endswith(".dir"):
            yield path, out.get("size")
            continue
        content = (objects / path).read_bytes()
        yield path, len(content)
        for item in json.loads(content):
            yield f"{item['md5'][:2]}/{item['md5'][2:]}", None
