"""Sources: the files of a raw tree, pinned in a small lock file that is kept in git.

A source is a local folder or a bucket prefix, and may contain zips as they were delivered. `erv.pinning`
writes its lock file, a `Lock` reads and verifies its files, and `fetch_all` fetches the clips of a manifest.
"""

from erv.sources.fetching import CACHE, ObjectStore, fetch_all
from erv.sources.lock import LOCKS, Lock, SourceFile
from erv.sources.selection import Selection
from erv.sources.store import store_for

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
