"""The pinned base checkpoint: what is in it and how large its policy is, without loading it."""

from __future__ import annotations

import json

from erv.doctor.policy_sizes import PolicySizes, sizes_of
from erv.environment import Environment
from erv.errors import DataError
from erv.sources.fetching import CACHE
from erv.sources.lock import Lock

CONFIG = "policy/config.json"


def base_lock(environment: Environment) -> Lock | None:
    """The lock of the base checkpoint, None if it is not pinned.

    Raises:
        DataError: the lock file is malformed.
    """
    path = environment.workspace / "data" / "sources" / "base.lock.json"
    return Lock.load(path) if path.is_file() else None


def base_sizes(environment: Environment) -> PolicySizes | None:
    """Sizes of the pinned base policy; fetches its configuration, a few kilobytes.

    Returns:
        None if nothing is pinned, no policy is in it, or it is of a family without known sizes.

    Raises:
        DataError: its configuration is not one, or not what was pinned.
        StorageError: it can't be fetched.
    """
    lock = base_lock(environment)
    if lock is None or CONFIG not in lock:
        return None
    store = None
    if lock.uri.startswith("s3://"):
        from erv.storage.store import open_store

        store = open_store(environment, patient=False)
    path = lock.fetch(store, CONFIG, environment.workspace / CACHE)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{lock.uri}/{CONFIG}: not JSON ({error}); mend it and pin again") from error
    return sizes_of(config, f"the policy of {lock.uri}")
