"""Small clips and a pinned folder of them, for tests of media, extraction and shards."""

import shutil
from pathlib import Path

import numpy as np

from erv.data.manifest import ClipRow
from erv.data.sample_clips import encode
from erv.data.selection import Selection
from erv.data.sources import Lock, pin
from erv.settings import ExtractSettings

ALL = Selection()
SETTINGS = ExtractSettings(
    frames=8,
    size=64,
    geometry="stretch",
    sample_rate=16000,
    short_folders="repeat",
    missing_audio="quarantine",
    clip_timeout_seconds=30,
    clip_memory_mb=1000,
    workers=2,
    dask=None,
    clips_per_shard=5,
    max_quarantine_share=0.5,
)


def settings(**changes) -> ExtractSettings:
    """The settings of the tests, with some of them changed."""
    return SETTINGS.model_copy(update=changes)


def tone(seconds: float, hertz: float = 440) -> np.ndarray:
    return (8000 * np.sin(2 * np.pi * hertz * np.arange(int(16000 * seconds)) / 16000)).astype(np.int16)


def movie(count: int = 24, height: int = 96, width: int = 160) -> list[np.ndarray]:
    """Frames whose brightness tells their number."""
    return [np.full((height, width, 3), 40 + 6 * index % 216, np.uint8) for index in range(count)]


def clip_bytes(number: int = 0) -> bytes:
    """An mp4 file of 24 frames with sound; equal for equal numbers."""
    texture = np.random.default_rng(number).integers(0, 60, (12, 20, 3), dtype=np.uint8)
    texture = texture.repeat(8, axis=0).repeat(8, axis=1)
    return encode([texture + picture for picture in movie(24)], tone(2.0, 200 + 20 * number))


def write_clips(folder: Path, count: int) -> list[Path]:
    """Files `00000.mp4`, ...; four different clips, repeated."""
    folder.mkdir(parents=True, exist_ok=True)
    made = [clip_bytes(number) for number in range(min(count, 4))]
    paths = [folder / f"{number:05d}.mp4" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(made[number % 4])
    return paths


def pinned(
    folder: Path, name: str = "mafw", store=None, uri: str | None = None, selection: Selection = ALL
) -> tuple[list[ClipRow], Lock]:
    """Rows and lock of all files in a folder, as ingest would give them."""
    lock = pin(name, uri or str(folder), store, selection=selection)
    return [row_of(lock, file.path) for file in lock.files], lock


def row_of(lock: Lock, path: str) -> ClipRow:
    file = lock.find(path)
    return ClipRow(
        clip_id=Path(path).stem,
        dataset=lock.name,
        fold=1,
        split="train",
        label="happiness",
        raw_label="happiness",
        caption=None,
        completion=None,
        media="frames" if file.frames else "video",
        uri=lock.uri_of(path),
        bytes=file.bytes,
        sha256=file.sha256,
        label_from="list.txt:1",
        split_from="list.txt:1",
        caption_from=None,
    )


def same_files(first: Path, second: Path) -> bool:
    """Whether two folders hold the same names with the same bytes."""
    names = sorted(path.name for path in first.iterdir())
    return names == sorted(path.name for path in second.iterdir()) and all(
        (first / name).read_bytes() == (second / name).read_bytes() for name in names
    )


def copy_tree(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target))
