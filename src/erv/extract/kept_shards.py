"""Finished shards of an extraction, kept for the next one, whether this one was interrupted or completed.

DVC deletes the outputs of a stage before it runs, so shards are first written to
`.erv/extract/<data set>/<key>/` and linked into the outputs when all are there. The key is the hash of
everything that decides them. A shard counts only with its completion record, which is written last, and is
verified before it is reused.

Published shards stay here too. A change that can't alter a shard (another fold, another limit of a check)
runs the stage again, but then nothing has to be decoded. They are deleted when an extraction of the same data
set with another key is complete. They are hard links to the outputs and take no space until DVC replaces the
outputs with copies from its cache, as it does by default on file systems without reflinks; then they take as
much space as the outputs. Once a file here has its record, it is never opened for writing, since the outputs,
and DVC's cache if its type is hardlink, may share it; it is only removed and written from scratch.
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
    """Keeps a second extraction of a data set out of the same folder; a killed one does not block it.

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
        root: parent of all such folders.

    Attributes:
        folder: where shards are written.
        finished: chunks that are done, by number.
    """

    def __init__(self, dataset: str, key: str, chunks: list[Chunk], root: Path = ROOT) -> None:
        self.folder = root / dataset / key
        self.finished: dict[int, Finished] = {}
        self._dataset, self._chunks = dataset, chunks
        self.folder.mkdir(parents=True, exist_ok=True)
        self._load()

    def _load(self) -> None:
        """Takes over the intact shards and removes the rest."""
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
            return None  # killed while it was written, or before
        if not whole or kept.clips + len(rejected) != len(chunk.rows):
            logger.warning("extract %s: kept shard %d is damaged, rewriting it", self._dataset, chunk.number)
            return None
        return kept

    def complete(self, finished: Finished) -> None:
        """Writes the completion record of a shard whose file is in the folder."""
        shard = self.folder / shard_name(finished.number)
        # No fsync: whatever a crash of the machine leaves, the digest tells.
        record = {"sha256": sha256_of_file(shard), "clips": finished.clips, "rejected": finished.rejected}
        write_text(json.dumps(record, ensure_ascii=False), shard.with_suffix(".json"))
        self.finished[finished.number] = finished

    def publish(self, shards: Path) -> None:
        """Puts all shards into the output folder, which appears complete, and removes those of other keys.

        It uses hard links, so that nothing is copied and a kill in between loses nothing. Where the file
        system has none it copies, and then keeps nothing here, since that would take the space twice.
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
