"""Shards: decoded clips in parquet files, lossless, written and read by clip id.

`shard-00000.parquet` holds up to N clips in the order of their ids: frames uint8 RGB [T, H, W, 3] in C order
with their shape, audio int16 little-endian mono with its rate. The bytes depend only on the clips.

A row group is what a reader fetches and decompresses at once, and trainers read clips in random order. So a
group is small: at most 4 clips, and at most 2 MiB unless a single clip is larger (8 frames at 224x224 and 3 s
of sound take 1.3 MB, so each such clip is a group of its own). Measured on one core, with clips of 8
photographs and up to N clips in a group, the time to read a clip in random order and in order, and the size
compared with groups of 16: at 224x224, N = 16: 12.0 and 1.7 ms; 4: 4.5 and 1.8 ms, 99.9%; 1: 2.1 and 1.9 ms,
100.0%. At 64x64 (0.16 MB a clip), N = 16: 1.6 and 0.3 ms; 4: 0.8 and 0.3 ms, 100.4%; 1: 0.5 and 0.5 ms,
101.2%. Readers take groups of any size, so shards with the groups of 16 of earlier versions stay readable.

Compression is zstd at level -1. Measured on one core with clips of 8 photographs of 224 x 224 and a tone (1.3
MB), the time to write and to read a clip, and the size compared with uncompressed: none 1.1 and 0.3 ms, 100%;
lz4 1.7 and 0.5 ms, 80%; zstd -1 2.1 and 0.7 ms, 77%; zstd 1 2.9 and 1.2 ms, 76%; zstd 3 6.2 and 1.5 ms, 72%.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from erv.errors import DataError
from erv.files import whole_folder

ROWS_PER_GROUP = 4
BYTES_PER_GROUP = 2 * 2**20
_ZSTD_LEVEL = -1

SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("frames", pa.binary(), nullable=False),
        pa.field("frames_shape", pa.list_(pa.int32()), nullable=False),
        pa.field("audio", pa.binary(), nullable=False),
        pa.field("sample_rate", pa.int32(), nullable=False),
        pa.field("has_audio", pa.bool_(), nullable=False),
    ]
)

QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("sha256", pa.string()),  # none for a clip that ingest excluded
    ]
)


@dataclass(frozen=True)
class Clip:
    """One decoded clip.

    Attributes:
        clip_id: as in the manifest.
        frames: uint8 RGB [T, H, W, 3].
        audio: int16 mono [samples]; empty when the clip has no sound.
        sample_rate: sample rate of `audio`, in Hz.
        has_audio: False only under the policy `missing_audio: mark`.
    """

    clip_id: str
    frames: np.ndarray
    audio: np.ndarray
    sample_rate: int
    has_audio: bool = True


def hears(clip: Clip) -> bool:
    """Whether a clip has sound.

    Raises:
        DataError: it is marked as one with sound and has none, or the other way round. Then the sound was
            lost on the way, and the clip must not pass for a silent one.
    """
    if clip.has_audio != bool(clip.audio.size):
        marked = "with sound" if clip.has_audio else "without sound"
        raise DataError(
            f"clip {clip.clip_id!r} is marked as one {marked}, but has {clip.audio.size} samples of it; run"
            " extract again"
        )
    return clip.has_audio


def shard_name(number: int) -> str:
    """File name of the shard with this number, from 0."""
    return f"shard-{number:05d}.parquet"


class ShardFile:
    """Writes clips, given in the order of their ids, to one parquet file.

    A thread compresses and writes a row group while the next one is collected, so at most two are in memory.
    Use as a context manager; when the block raises, the file is removed.
    """

    def __init__(self, path: Path, after: str | None = None) -> None:
        self._path = path
        self._last = after
        self._group: list[Clip] = []
        self._bytes = 0
        self._thread = ThreadPoolExecutor(1, "shard")
        self._writing: Future[None] | None = None
        self.clips = 0

    def __enter__(self) -> Self:
        # No dictionaries and no statistics: both only cost time and bytes on frames.
        self._writer = pq.ParquetWriter(
            self._path,
            SCHEMA,
            compression="zstd",
            compression_level=_ZSTD_LEVEL,
            use_dictionary=False,
            write_statistics=False,
        )
        return self

    def add(self, clip: Clip) -> None:
        """Appends a clip.

        Raises:
            DataError: clips are not in the order of their ids, or frames or audio have another dtype or rank.
        """
        if self._last is not None and clip.clip_id <= self._last:
            raise DataError(
                f"clip {clip.clip_id!r} after {self._last!r}: shards take clips in the order of their ids"
            )
        if clip.frames.dtype != np.uint8 or clip.frames.ndim != 4 or clip.frames.shape[-1] != 3:
            raise DataError(
                f"clip {clip.clip_id!r}: frames are {clip.frames.dtype} {clip.frames.shape},"
                " expected uint8 [T, H, W, 3]"
            )
        if clip.audio.dtype != np.int16 or clip.audio.ndim != 1:
            raise DataError(
                f"clip {clip.clip_id!r}: audio is {clip.audio.dtype} {clip.audio.shape}, expected int16 [n]"
            )
        hears(clip)
        size = clip.frames.nbytes + clip.audio.nbytes
        if self._group and self._bytes + size > BYTES_PER_GROUP:
            self._flush()
        self._last = clip.clip_id
        self._group.append(clip)
        self._bytes += size
        self.clips += 1
        if len(self._group) == ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        self._wait()
        self._writing = self._thread.submit(self._write, self._group)
        self._group, self._bytes = [], 0

    def _wait(self) -> None:
        """Waits for the row group that is being written and raises its error, if any."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, clips: Sequence[Clip]) -> None:
        shapes = [list(clip.frames.shape) for clip in clips]
        columns = [
            pa.array([clip.clip_id for clip in clips], pa.string()),
            _binary([np.ascontiguousarray(clip.frames) for clip in clips]),
            pa.array(shapes, pa.list_(pa.int32())),
            _binary([clip.audio.astype("<i2", copy=False) for clip in clips]),
            pa.array([clip.sample_rate for clip in clips], pa.int32()),
            pa.array([clip.has_audio for clip in clips], pa.bool_()),
        ]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=SCHEMA))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                if self._group:
                    self._flush()
                self._wait()
        finally:
            self._thread.shutdown()
            self._writer.close()
            if kind is not None:
                self._path.unlink(missing_ok=True)


def _binary(arrays: Sequence[np.ndarray]) -> pa.Array:
    """Arrays as a binary column, copied once."""
    offsets = np.zeros(len(arrays) + 1, np.int32)
    np.cumsum([array.nbytes for array in arrays], out=offsets[1:])
    data = np.concatenate([array.reshape(-1).view(np.uint8) for array in arrays])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.binary(), len(arrays), buffers)


class ShardWriter:
    """Writes clips, given in the order of their ids, to a fresh folder that appears when complete.

    Use as a context manager; when the block raises, nothing is left behind.
    """

    def __init__(self, folder: Path, clips_per_shard: int) -> None:
        self._whole = whole_folder(folder)
        self._clips_per_shard = clips_per_shard
        self._shard: ShardFile | None = None
        self._shards = 0
        self._last: str | None = None
        self.clips = 0

    def __enter__(self) -> Self:
        self._temporary = self._whole.__enter__()
        return self

    def add(self, clip: Clip) -> None:
        """Appends a clip; raises as `ShardFile.add`."""
        if self._shard is None:
            self._open()
        assert self._shard is not None
        self._shard.add(clip)
        self._last = clip.clip_id
        self.clips += 1
        if self._shard.clips == self._clips_per_shard:
            self._close()

    def _open(self) -> None:
        self._shard = ShardFile(self._temporary / shard_name(self._shards), self._last).__enter__()
        self._shards += 1

    def _close(self) -> None:
        if self._shard is not None:
            self._shard.__exit__(None, None, None)
            self._shard = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            if not self._shards:
                self._open()
            self._close()
        elif self._shard is not None:
            self._shard.__exit__(kind, error, trace)
        self._whole.__exit__(kind, error, trace)


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Turns the errors of reading a shard into one sentence."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable shard ({error}); run extract again") from error


class ShardReader:
    """Reads clips by id from a folder of shards; keeps the last few row groups in memory.

    Args:
        folder: written by `ShardWriter`.
        cached_groups: number of row groups (see above) to keep in memory.

    Raises:
        DataError: the folder has no shards, or one is not readable.
    """

    def __init__(self, folder: Path, cached_groups: int = 8) -> None:
        paths = sorted(folder.glob("shard-*.parquet"))
        if not paths:
            raise DataError(f"{folder}: no shards; run `dvc repro extract` first")
        self._folder = folder
        files: list[pq.ParquetFile] = []
        self._where: dict[str, tuple[int, int, int]] = {}
        self.silent: set[str] = set()  # clips without sound, under the policy `missing_audio: mark`
        for index, path in enumerate(paths):
            with _whole(path):
                file = pq.ParquetFile(path)
            files.append(file)
            with _whole(path):
                table = file.read(columns=["clip_id", "has_audio"])
            ids = table.column("clip_id").to_pylist()
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            places = ((index, group, row) for group, size in enumerate(sizes) for row in range(size))
            self._where.update(zip(ids, places, strict=True))
            heard = table.column("has_audio").to_pylist()
            self.silent.update(clip_id for clip_id, has in zip(ids, heard, strict=True) if not has)
        self.clip_ids: list[str] = list(self._where)

        @functools.lru_cache(cached_groups)
        def read_group(shard: int, group: int) -> pa.Table:
            with _whole(paths[shard]):
                return files[shard].read_row_group(group)

        self._group = read_group

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, clip_id: str) -> bool:
        return clip_id in self._where

    def __iter__(self) -> Iterator[Clip]:
        return (self.get(clip_id) for clip_id in self.clip_ids)

    def get(self, clip_id: str) -> Clip:
        """The clip with this id; its arrays are read-only views.

        Raises:
            DataError: the clip is not in these shards.
        """
        try:
            shard, group, row = self._where[clip_id]
        except KeyError:
            raise DataError(
                f"clip {clip_id!r} is not in {self._folder} ({len(self)} clips); did extract quarantine it?"
            ) from None
        values = {
            name: column[0] for name, column in self._group(shard, group).slice(row, 1).to_pydict().items()
        }
        clip = Clip(
            clip_id=clip_id,
            frames=np.frombuffer(values["frames"], np.uint8).reshape(values["frames_shape"]),
            audio=np.frombuffer(values["audio"], "<i2"),
            sample_rate=values["sample_rate"],
            has_audio=values["has_audio"],
        )
        hears(clip)
        return clip
