"""Sources: the files of a raw tree, pinned in a small lock file that is kept in git.

A source is a local folder or a bucket prefix, and may contain zips as they were delivered. `erv.pinning`
writes its lock file, a `Lock` reads and verifies its files, and `fetch_all` fetches the clips of a manifest.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from erv.sources.fetching import CACHE, ObjectStore, fetch_all
from erv.sources.lock import Lock, SourceFile
from erv.sources.selection import Selection

__all__ = [
    "CACHE",
    "LOCKS",
    "Lock",
    "ObjectStore",
    "Selection",
    "SourceFile",
    "fetch_all",
    "store_for",
]

LOCKS = Path("data/sources")


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
