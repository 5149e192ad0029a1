"""What coordinators and workers leave for each other in the bucket, by age: stages and commits.

Ages are those of the store's clock. A stage that runs or waits is young: its pulse, or the note of who waits
for it, is rewritten every few seconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from erv.remote.board import PREFIX
from erv.storage.errors import ObjectError
from erv.storage.store import ObjectInfo, Store

# With this name first: without its request, an attempt is never taken for one that waits for a worker. What
# says that an attempt no longer counts goes last.
_FIRST, _LAST = "request.json", ("superseded.json", "result.json")


@dataclass(frozen=True)
class Cleared:
    """What was removed, or would be: how many stages and commits, bytes, and how many of both are younger."""

    stages: int
    commits: int
    size: int
    kept: int


def clear(store: Store, bucket: str, days: float, *, dry: bool = False) -> Cleared:
    """Removes stages of which nothing was written for so many days, and commits that nobody needs any more.

    Args:
        store: of DVC's remote.
        bucket: its bucket.
        days: the age from which something goes; at least two, as a commit is sent anew after a day.
        dry: only count.

    Raises:
        StorageError: the store can't be asked.
    """
    before = store.now(bucket) - timedelta(days=days)
    groups: dict[str, list[ObjectInfo]] = {}
    for info in store.list(f"s3://{bucket}/{PREFIX}"):
        kind, _, rest = info.key.removeprefix(f"{PREFIX}/").partition("/")
        groups.setdefault(f"{kind}/{rest.partition('/')[0]}", []).append(info)
    old = {
        name: items
        for name, items in groups.items()
        if all(item.modified is not None and item.modified < before for item in items)
    }
    young = [item for name, items in groups.items() if name not in old for item in items]
    for commit in _needed(store, young):
        old.pop(f"commits/{commit}.bundle", None)
    if not dry:
        for items in old.values():
            _remove(store, items)
    return Cleared(
        stages=sum(name.startswith("stages/") for name in old),
        commits=sum(name.startswith("commits/") for name in old),
        size=sum(item.size for items in old.values() for item in items),
        kept=len(groups) - len(old),
    )


def _needed(store: Store, items: Iterable[ObjectInfo]) -> set[str]:
    """The commits that younger requests name: a worker that is lost may have another one fetch it."""
    found: set[str] = set()
    for item in items:
        if item.key.endswith(f"/{_FIRST}"):
            with suppress(ObjectError, ValueError, AttributeError):
                found.add(str(json.loads(store.read(item.uri)).get("commit")))
    return found


def _remove(store: Store, items: Sequence[ObjectInfo]) -> None:
    def turn(item: ObjectInfo) -> int:
        return 0 if item.key.endswith(_FIRST) else 2 if item.key.endswith(_LAST) else 1

    for item in sorted(items, key=turn):
        with suppress(ObjectError):
            store.delete(item.uri)
