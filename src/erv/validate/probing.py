"""Probes clips: inspects their media at the cost of one pass over the sound and a few pictures.

`erv.validate.validate` judges the results; nothing else is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from erv.manifest import ClipRow
from erv.media.frames import list_frames, read_frame
from erv.media.limits import MediaError
from erv.media.workers import isolated
from erv.progress import meter, ticker
from erv.settings import ValidateSettings
from erv.sources import Lock, ObjectStore, fetch_all
from erv.validate.probes import LOOKS, THUMBNAIL, Probe, luma, spread
from erv.validate.video_probe import probe_video

__all__ = ["Probe", "probe", "probe_clips"]

logger = logging.getLogger(__name__)


def probe_clips(
    rows: Sequence[ClipRow],
    lock: Lock,
    store: ObjectStore | None,
    settings: ValidateSettings,
    *,
    workers: int,
) -> dict[str, Probe]:
    """Probes every clip in worker processes, which a broken file may kill.

    Args:
        rows: of one manifest.
        lock: of the source that they come from.
        store: for clips in an object store.
        settings: each clip's time and memory.
        workers: processes that look into clips.

    Returns:
        A probe per clip id, in the order of the rows.

    Raises:
        DataError: the manifest doesn't match the lock, or a local clip is gone.
        StorageError: a clip can't be fetched.
    """
    tasks = ((row.clip_id, path) for row, path in zip(rows, fetch_all(rows, lock, store), strict=True))
    probes = {}
    with meter(f"validate {rows[0].dataset if rows else ''}", len(rows), "clips", logger) as bar:
        tick = ticker(bar, "can't be decoded")
        for outcome in isolated(
            _probe_task,
            tasks,
            workers=workers,
            seconds=float(settings.clip_timeout_seconds),
            memory_mb=settings.clip_memory_mb,
            prepare=_load_prober,
        ):
            found = outcome.result or Probe(fault=outcome.failure)
            probes[outcome.item[0]] = found
            tick(not found.decodable)
    return probes


def _load_prober() -> None:
    """Imports what `probe` needs, before any clip's time limit starts."""
    import av.subtitles.stream  # noqa: F401  # PyAV imports it when it opens the first file
    import PIL.Image  # noqa: F401


def _probe_task(task: tuple[str, Path]) -> Probe:
    return probe(task[1])


def probe(path: Path) -> Probe:
    """Probes a video, or a frame folder if `path` is one. Never raises for bad content."""
    return _probe_folder(path) if path.is_dir() else probe_video(path)


def _probe_folder(path: Path) -> Probe:
    """Probes some images of a folder, including the first and the last."""
    from PIL import Image

    width = height = count = 0
    brightest: float | None = None
    fault = None
    try:
        frames = list_frames(path)
        count = len(frames)
        for index in spread(list(range(count)), LOOKS):
            image = read_frame(frames[index])
            width, height = image.size
            small = image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)
            brightest = max(brightest or 0.0, luma(np.asarray(small)))
    except MediaError as error:
        fault = str(error)
    except MemoryError:
        fault = "an image takes more memory than there is"
    return Probe(fault=fault, frames=count, width=width, height=height, brightness=brightest)
