"""The clips of a manifest, fetched as they were pinned. One that can't be had costs its own row only."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from erv.errors import DataError, full_disk
from erv.files import sweep
from erv.manifest import ClipRow, read_manifest
from erv.predict.listing import ListedClip, Listing, Unread
from erv.sources import CACHE, LOCKS, Lock, SourceFile, store_for
from erv.sources.fetching import Fetcher, is_remote, local_root
from erv.sources.threads import THREADS, in_order
from erv.storage.errors import ObjectError

_FRAMES = "a folder of frames has no sound; name the video"


def of_manifest(path: Path) -> Listing:
    """The clips of a manifest, see `erv.predict.listing.list_clips`.

    Raises:
        DataError: it lists no clips, one twice, or those of several data sets; or it and its lock, or the
            lock and the source, don't belong together.
    """
    rows = _rows(path)
    lock = Lock.load(LOCKS / f"{rows[0].dataset}.lock.json")
    pinned = [_pinned(row, lock, path) for row in rows]
    if not is_remote(lock.uri) and not local_root(lock.uri).is_dir():
        raise DataError(f"{path}: its clips are in {lock.uri}, which is no folder; mount or restore it")
    store = store_for([lock.uri])

    def files(numbers: Sequence[int]) -> Iterator[Path | Unread]:
        sweep(CACHE)
        with Fetcher(lock, store) as fetcher:

            def get(file: SourceFile) -> Path | Unread:
                try:
                    return fetcher.get(file).resolve()
                except (DataError, ObjectError) as error:
                    if full_disk(error) is not None:  # no fault of the clip
                        raise
                    return Unread(" ".join(str(error).split()))

            yield from in_order(
                get, [pinned[number] for number in numbers], fetcher.progress, threads=THREADS
            )

    clips = tuple(
        ListedClip(
            row.clip_id,
            row.sha256,
            None if row.media == "video" else _FRAMES,
            dataset=row.dataset,
            subtitle=row.subtitle,
        )
        for row in rows
    )
    return Listing(clips, 0, files)


def _rows(path: Path) -> list[ClipRow]:
    """The rows of a manifest, by clip id."""
    rows = read_manifest(path)
    if not rows:
        raise DataError(f"{path}: lists no clips")
    if not all(
        isinstance(text, str) for row in rows for text in (row.clip_id, row.dataset, row.uri, row.sha256)
    ):
        raise DataError(
            f"{path}: has rows without the id, data set, uri or sha256 of a clip; ingest writes all"
        )
    others = sorted({row.dataset for row in rows})
    if len(others) > 1:
        raise DataError(f"{path}: has clips of {' and '.join(others[:2])}; ask about one data set at a time")
    rows.sort(key=lambda row: row.clip_id)
    for before, after in itertools.pairwise(rows):
        if before.clip_id == after.clip_id:
            raise DataError(
                f"{path}: lists clip {after.clip_id!r} twice, so a row could not be told from the other; run"
                f" `dvc repro ingest@{after.dataset}` again"
            )
    return rows


def _pinned(row: ClipRow, lock: Lock, path: Path) -> SourceFile:
    file = lock.by_uri.get(row.uri)
    if file is None or file.sha256 != row.sha256:
        raise DataError(
            f"{path}: {row.uri} is not as in the lock of {lock.name}; run `dvc repro ingest@{lock.name}`"
            " again"
        )
    return file
