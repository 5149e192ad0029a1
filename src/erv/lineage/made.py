"""Whether a run made a lock entry, or somebody wrote it.

Git merges two people's `dvc.lock` line by line. What comes of that can name the parameters of one with the
outputs of the other, and DVC then takes it as up to date. An entry that a run made is in MLflow, or in DVC's
run cache, here or in the remote, in these very words.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from erv.environment import Environment
from erv.errors import StorageError
from erv.files import parse_yaml
from erv.tracking.lock_entries import entry_hash

if TYPE_CHECKING:
    from erv.storage.store import Store

_RUNS = "runs"
_LEFT_OUT = ("size", "nfiles")  # of what DVC hashes


def run_cache_key(entry: Mapping[str, Any]) -> str:
    """The folder of DVC's run cache that has the runs with these dependencies and parameters.

    As `dvc.stage.cache` computes it: SHA-256 over the entry as JSON, with the outputs' paths alone.
    """
    content = {**entry, "outs": [out["path"] for out in entry.get("outs") or []]}
    return hashlib.sha256(json.dumps(_without_sizes(content), sort_keys=True).encode()).hexdigest()


def unmade(name: str, entry: Mapping[str, Any], environment: Environment, store: Store | None) -> str | None:
    """Why it can't be told that a run made an entry; None if a run cache has it.

    Args:
        name: of the stage.
        entry: of `dvc.lock`, which no run in MLflow made.
        environment: of the workspace whose run cache is read, and of the remote.
        store: of the remote; None without one.
    """
    digest = entry_hash(entry)
    try:
        if any(_is(content, digest) for content in _kept(entry, environment, store)):
            return None
    except StorageError as error:
        return f"MLflow has no run of it, and DVC's run cache in the remote can't be read: {error}"
    return (
        "no run in MLflow and none in DVC's run cache made it, as when git has merged two of dvc.lock or"
        f" after `dvc commit`; run `erv run --force {name}`"
    )


def _kept(entry: Mapping[str, Any], environment: Environment, store: Store | None) -> Iterator[bytes]:
    key = run_cache_key(entry)
    folder = f"{_RUNS}/{key[:2]}/{key}"
    for path in sorted((environment.workspace / ".dvc/cache" / folder).glob("*")):
        yield path.read_bytes()
    if store is not None:
        for info in store.list(f"s3://{environment.dvc_bucket}/{folder}"):
            yield store.read(f"s3://{environment.dvc_bucket}/{info.key}")


def _is(content: bytes, digest: str) -> bool:
    try:
        entry = parse_yaml(content)
    except ValueError:  # DVC deletes a damaged one when it meets it
        return False
    return isinstance(entry, dict) and entry_hash(entry) == digest


def _without_sizes(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {str(key): _without_sizes(value) for key, value in content.items() if key not in _LEFT_OUT}
    if isinstance(content, list | tuple):
        return [_without_sizes(item) for item in content]
    return content
