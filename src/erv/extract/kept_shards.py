"""Finished shards of an extraction, kept for the next one whether this one is interrupted or completes.

DVC deletes the outputs of a stage before it runs, so shards are first written to
`.erv/extract/<data set>/<key>/` and linked into the outputs when all are done. The key is the hash of
everything that decides their content. A shard counts only with its completion record, which is written last,
and is verified before it is reused.

Published shards stay here too. A change that can't alter a shard (of the fold, or of a limit of a check) runs
the stage again, but nothing is decoded. They are deleted when an extraction of the same data set with another
key completes. They are hard links to the outputs, so they take no space until DVC replaces the outputs with
copies from its cache, its default on file systems without reflinks. Then they take as much space as the
outputs. A file that has its record is never opened for writing, since the outputs may share it (and so may
DVC's cache, if its type is hardlink); it is only removed and written again.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from erv.errors import DataError
from erv.extract.chunks import Chunk, Finished
from erv.files import sha256_of_file, whole_folder, write_text
from erv.shards import shard_name

logger = logging.getLogger(__name__)

ROOT = Path(".erv/extract")


@contextmanager
def one_at_a_time(dataset: str, root: Path = ROOT) -> Iterator[None]:
    """Keeps two extractions of a data set out of the same folder; a killed one does not block the next.

    Raises:
        DataError: another one is running.
    """
    from filelock import FileLock, Timeout

    root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root / f"{dataset}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise DataError(
            f"{dataset}: another extraction of it is running in this workspace ({lock.lock_file} is held);"
            " wait for it or stop it"
        ) from None
    try:
        yield
    finally:
        lock.release()


class ExtractState:
    """The folder of one extraction.

    Args:
        dataset: name of the data set.
        key: from `erv.extract.chunks.extraction_key`.
        chunks: all chunks of the extraction.
        root: parent of these folders.

    Attributes:
        folder: where shards are written.
        finished: finished chunks, by number.
    """

    def __init__(self, dataset: str, key: str, chunks: list[Chunk], root: Path = ROOT) -> None:
        self.folder = root / dataset / key
        self.finished: dict[int, Finished] = {}
        self._dataset, self._chunks = dataset, chunks
        self.folder.mkdir(parents=True, exist_ok=True)
        self._load()

    def _load(self) -> None:
        """Adopts the intact shards and removes the rest."""
        for chunk in self._chunks:
            kept = self._verified(chunk)
            if kept is not None:
                self.finished[chunk.number] = kept
        for path in self.folder.iterdir():
            number = path.stem.removeprefix("shard-")
            if not (number.isdigit() and int(number) in self.finished):
                path.unlink()
        if self.finished:
            logger.info(
                "extract %s: %d of %d shards kept from an earlier run",
                self._dataset,
                len(self.finished),
                len(self._chunks),
            )

    def _verified(self, chunk: Chunk) -> Finished | None:
        shard = self.folder / shard_name(chunk.number)
        try:
            record = json.loads(shard.with_suffix(".json").read_text(encoding="utf-8"))
            whole = record["sha256"] == sha256_of_file(shard)
            rejected = tuple((str(clip_id), str(reason)) for clip_id, reason in record["rejected"])
            kept = Finished(chunk.number, int(record["clips"]), rejected)
        except (OSError, ValueError, KeyError, TypeError):
            return None  # the process was killed before the record was complete
        if not whole or kept.clips + len(rejected) != len(chunk.rows):
            logger.warning("extract %s: kept shard %d is damaged, rewriting it", self._dataset, chunk.number)
            return None
        return kept

    def complete(self, finished: Finished) -> None:
        """Writes the completion record of a shard that is in the folder."""
        shard = self.folder / shard_name(finished.number)
        # No fsync: the digest detects a file that a crash of the machine damaged.
        record = {"sha256": sha256_of_file(shard), "clips": finished.clips, "rejected": finished.rejected}
        write_text(json.dumps(record, ensure_ascii=False), shard.with_suffix(".json"))
        self.finished[finished.number] = finished

    def publish(self, shards: Path) -> None:
        """Publishes all shards as the output folder in one step, and removes the shards of other keys.

        Hard links avoid copies, and a kill in between loses nothing. On a file system without them it copies
        the shards and then keeps none here, since that would double the space.
        """
        linked = True
        with whole_folder(shards) as published:
            for number in sorted(self.finished):
                name = shard_name(number)
                try:
                    os.link(self.folder / name, published / name)
                except OSError:
                    linked = False
                    shutil.copyfile(self.folder / name, published / name)
        self._remove_others()
        if not linked:
            shutil.rmtree(self.folder)
            if not any(self.folder.parent.iterdir()):
                self.folder.parent.rmdir()

    def _remove_others(self) -> None:
        siblings = sorted(self.folder.parent.iterdir())
        others = [path for path in siblings if path.is_dir() and path != self.folder]
        for path in others:
            shutil.rmtree(path)
        if others:
            logger.info(
                "extract %s: removed the shards kept from runs with other clips, settings or versions",
                self._dataset,
            )
