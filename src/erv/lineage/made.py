"""Whether a run made a lock entry, or somebody wrote it.

Git merges two people's `dvc.lock` line by line. What comes of that can name the parameters of one with the
outputs of the other, and DVC then takes it as up to date. An entry that a run made is in MLflow, or in DVC's
run cache, here or in the remote, in these very words.
"""

from __future__ import annotations

import hashlib
import json
import re
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
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


def run_cache_key(entry: Mapping[str, Any]) -> str:
    """The folder of DVC's run cache that has the runs with these dependencies and parameters.

    As `dvc.stage.cache` computes it: SHA-256 over the entry as JSON, with the outputs' paths alone. DVC reads
    numbers as YAML 1.2 has them (`2e-05`), which our reader takes for texts.
    """
    content = {**entry, "outs": [out["path"] for out in entry.get("outs") or []]}
    return hashlib.sha256(json.dumps(_as_dvc_has_it(content), sort_keys=True).encode()).hexdigest()


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
    here, folder = environment.workspace / ".dvc/cache" / _RUNS, f"{_RUNS}/{key[:2]}/{key}"
    # Then all others: where DVC and we read a value differently, the key is another.
    for path in (*sorted(here.glob(f"{key[:2]}/{key}/*")), *sorted(here.glob("*/*/*"))):
        try:
            yield path.read_bytes()
        except OSError:  # DVC moves its temporary files away
            continue
    if store is not None:
        for info in store.list(f"s3://{environment.dvc_bucket}/{folder}"):
            yield store.read(f"s3://{environment.dvc_bucket}/{info.key}")


def _is(content: bytes, digest: str) -> bool:
    try:
        return bool(entry_hash(parse_yaml(content)) == digest)
    except (ValueError, LookupError, TypeError, AttributeError):  # DVC deletes a damaged one when it meets it
        return False


def _as_dvc_has_it(content: Any) -> Any:
    """Without sizes, and with numbers where YAML 1.2 has them."""
    if isinstance(content, Mapping):
        return {str(key): _as_dvc_has_it(value) for key, value in content.items() if key not in _LEFT_OUT}
    if isinstance(content, list | tuple):
        return [_as_dvc_has_it(item) for item in content]
    return float(content) if isinstance(content, str) and _NUMBER.fullmatch(content) else content
