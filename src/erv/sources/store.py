"""The object store of the workspace, if a source needs one."""

from __future__ import annotations

from collections.abc import Iterable

from erv.sources.fetching import ObjectStore


def store_for(uris: Iterable[str]) -> ObjectStore | None:
    """The store of the workspace's environment, or None when every uri is local.

    Raises:
        StorageError: a uri is in S3 and no endpoint is configured.
    """
    if not any(uri.startswith("s3://") for uri in uris):
        return None
    from erv.environment import load_environment
    from erv.storage.store import open_store

    store: ObjectStore = open_store(load_environment())
    return store
