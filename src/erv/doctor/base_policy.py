"""The pinned base checkpoint: what is in it and how large its policy is, without loading it."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from erv.doctor.policy_sizes import PolicySizes, sizes_of
from erv.environment import Environment
from erv.errors import DataError
from erv.files import sha256_of, write_document
from erv.sources.fetching import CACHE
from erv.sources.lock import Lock

CONFIG = "policy/config.json"
_COUNTED = Path(".erv/sizes")

logger = logging.getLogger(__name__)


def base_lock(environment: Environment) -> Lock | None:
    """The lock of the base checkpoint, None if it is not pinned.

    Raises:
        DataError: the lock file is malformed.
    """
    path = environment.workspace / "data" / "sources" / "base.lock.json"
    return Lock.load(path) if path.is_file() else None


def base_config(environment: Environment) -> tuple[dict[str, Any], str] | None:
    """`config.json` of the pinned base policy, fetched if need be, and the place that it is pinned at.

    Returns:
        None if nothing is pinned, or no policy is in it.

    Raises:
        DataError: it is not a JSON object, or not what was pinned.
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
    except (ValueError, RecursionError) as error:
        raise DataError(f"{lock.uri}/{CONFIG}: not JSON ({error}); correct it and pin again") from error
    if not isinstance(config, dict):
        raise DataError(f"{lock.uri}/{CONFIG}: expected a JSON object; correct it and pin again")
    return config, lock.uri


def base_family_fault(environment: Environment, family: str) -> str | None:
    """What is wrong with the family of the pinned base policy, None if it is the expected one or not pinned.

    Args:
        environment: workspace and store.
        family: the value of `policy.family`.

    Raises:
        DataError, StorageError: see `base_config`.
    """
    from erv.policies.common.families import family_fault

    found = base_config(environment)
    return family_fault(found[0], f"{found[1]}/policy", family) if found else None


def base_sizes(environment: Environment) -> PolicySizes | None:
    """Sizes of the pinned base policy; fetches its configuration, a few kilobytes.

    Counting imports torch, which is not worth it in every run of the pipeline: the sizes are kept in
    `.erv/sizes` until the configuration or the code of the policies changes.

    Returns:
        None if nothing is pinned, no policy is in it, or it is of a family without known sizes.

    Raises:
        DataError: its configuration is not one, or not what was pinned.
        StorageError: it can't be fetched.
    """
    found = base_config(environment)
    if found is None:
        return None
    config, uri = found
    return _kept_sizes(config, f"the policy of {uri}", environment.workspace / _COUNTED)


def _kept_sizes(config: Mapping[str, Any], name: str, folder: Path) -> PolicySizes | None:
    library = Path(__file__).parents[1]
    code = [sha256_of(library / path) for path in ("policies", "doctor/policy_sizes.py")]
    key = json.dumps([name, config, code, metadata.version("transformers")], sort_keys=True)
    path = folder / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
    try:
        return PolicySizes(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):  # not there, or damaged
        logger.info("counting the parameters of %s, kept in %s from then on", name, _COUNTED)
        sizes = sizes_of(config, name)
    if sizes is not None:
        write_document(asdict(sizes), path)
    return sizes
